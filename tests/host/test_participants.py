"""The bundle of participants reveals nothing about the labels of the scored split."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.avsbench.unlabelled import is_labelled, stated_fingerprint
from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.errors import UsageError
from avsbench_harness.host.challenge import Challenge
from avsbench_harness.host.definition import write_definition
from avsbench_harness.host.participants import write_participants
from avsbench_harness.scoring import score_submission
from avsbench_harness.submission import check_submission, read_solution, read_submission
from avsbench_harness.tasks import AVSS, MS3, S4


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def bundle_of(root: Path, folder: Path, definition, out: Path) -> tuple[dict[str, bytes], str]:
    """The files of a bundle, and the fingerprint of the ground truth."""
    write_definition(folder, definition)
    with Challenge(folder) as challenge:
        write_participants(challenge, out)
        return content(out), challenge.snapshot().versions[0].solution


@pytest.mark.parametrize("task", ["ms3", "s4", "avss"])
def test_other_test_labels_give_the_same_bytes(tmp_path: Path, redefine, task: str) -> None:
    """Two data sets that differ in test masks, classes and further files alone give one bundle."""
    kind = {"ms3": MS3, "s4": S4, "avss": AVSS}[task]
    first, second = tmp_path / "first", tmp_path / "second"
    write_synthetic(first, kind, (1, 1, 4), 3, jobs=1)
    shutil.copytree(first, second)
    masks = 0
    for clip in open_dataset(second, kind).clips("test"):
        for mask in clip.masks:
            pixels = np.asarray(Image.open(mask))
            Image.fromarray(pixels[::-1].copy()).save(mask)
            masks += 1
    assert masks >= 20
    for table in second.rglob("*.csv"):  # other classes of the test clips
        if task == "avss":
            head, *rows = table.read_text().splitlines()
            place = head.split(",").index("a_obj")
            cells = [row.split(",") for row in rows]
            for row in cells:
                if "test" in row:
                    row[place] += "_cat"
            table.write_text("\n".join([head, *(",".join(row) for row in cells)]) + "\n")
    (second / "objects.npz").write_bytes(b"objects of composed clips")
    kept = {"task": task, "protocol": "semantic/1" if task == "avss" else "object/1"}
    kept["metrics"] = ["mIoU"] if task == "avss" else ["J"]
    one, ours = bundle_of(first, tmp_path / "c1", redefine(data=str(first), **kept), tmp_path / "b1")
    two, theirs = bundle_of(second, tmp_path / "c2", redefine(data=str(second), **kept), tmp_path / "b2")
    assert ours != theirs
    assert set(one) == set(two)
    for name, data in one.items():
        if name == "sample_submission.npz":
            continue  # compressed; compared below
        for fingerprint, other in ((ours, theirs), (ours[:12], theirs[:12])):  # the guide shows a prefix
            data, two[name] = (
                data.replace(fingerprint.encode(), b""),
                two[name].replace(other.encode(), b""),
            )
        assert data == two[name], name
    with (
        read_submission(tmp_path / "b1" / "sample_submission.npz") as a,
        read_submission(tmp_path / "b2" / "sample_submission.npz") as b,
    ):
        assert a.shapes == b.shapes
        assert not any(array.any() for _, array in [*a, *b])


@pytest.fixture
def bundle(competition, tmp_path: Path) -> Path:
    out = tmp_path / "bundle"
    assert write_participants(competition.challenge, out) == 11
    return out


def test_the_bundle_has_everything_but_the_test_labels(competition, bundle: Path, avs_data: Path) -> None:
    names = set(content(bundle))
    assert {"README.md", "RULES.md", "FORMAT.md", "challenge.json", "sample_submission.npz"} <= names
    packed = open_dataset(bundle / "data", MS3)
    assert packed.counts() == {"train": 2, "val": 1, "test": 8}
    assert packed.synthetic
    for split in ("train", "val", "test"):
        for clip in packed.clips(split):
            assert all(path.is_file() for path in clip.frames)
            assert clip.audio.is_file()
            present = [mask is not None and mask.is_file() for mask in clip.masks]
            assert present == [split != "test"] * 5
    source = open_dataset(avs_data, MS3)
    truths = {
        mask.read_bytes()
        for clip in source.clips("test")
        for mask in clip.masks
        if np.asarray(Image.open(mask)).any()  # empty masks also occur in train
    }
    assert len(truths) > 20
    assert not truths & set(content(bundle).values())
    assert not [name for name in names if "gt_masks/test" in name]


def test_private_clips_cannot_be_told(competition, bundle: Path) -> None:
    public = json.loads((bundle / "challenge.json").read_text())
    assert "parts" not in public
    text = " ".join(
        data.decode() for name, data in content(bundle).items() if name.endswith((".json", ".md"))
    )
    assert "seed" not in text
    assert "'private':" not in text


def test_the_sample_is_valid_and_scores_as_background(competition, bundle: Path) -> None:
    sample = bundle / "sample_submission.npz"
    with read_solution(competition.challenge.solution_of(1)) as truth, read_submission(sample) as submission:
        assert check_submission(sample, truth) == []
        found = score_submission(submission, truth).metrics["J"]
        # An empty prediction has IoU 1 in frames without an object, else 0.
        empty = [np.mean([not frame.any() for frame in truth.read(clip)]) for clip in truth.clips]
    assert found == pytest.approx(np.mean(empty))


def test_participants_get_the_fingerprint_but_no_ground_truth(competition, bundle: Path) -> None:
    packed = open_dataset(bundle / "data", MS3)
    with read_solution(competition.challenge.solution_of(1)) as truth:
        assert stated_fingerprint(packed, "test") == truth.fingerprint
    assert not is_labelled(packed.clips("test"))
    assert is_labelled(packed.clips("val"))


@pytest.mark.slow
def test_a_method_trained_on_the_bundle_can_be_submitted(
    competition, bundle: Path, tiny: str, tmp_path: Path, monkeypatch, avsb
) -> None:
    monkeypatch.chdir(tmp_path)
    run = [
        "--method",
        tiny,
        "--task",
        "ms3",
        "--data",
        bundle / "data",
        "--preset",
        "smoke",
        "--device",
        "cpu",
    ]
    assert avsb("train", *run).code == 0
    result = avsb("predict", *run, "--split", "test")
    assert result.code == 0, result.err
    (path,) = (tmp_path / "submissions").glob("*.npz")
    with read_solution(competition.challenge.solution_of(1)) as truth:
        assert check_submission(path, truth) == []


def test_an_existing_folder_is_not_overwritten(competition, bundle: Path) -> None:
    with pytest.raises(UsageError, match="not an empty folder"):
        write_participants(competition.challenge, bundle)
