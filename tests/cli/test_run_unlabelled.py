"""``avsb predict`` without ground truth, of a folder of clips, and with kept weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.submission import read_submission


@pytest.fixture
def bare(real_s4: Path, tmp_path: Path) -> Path:
    """The small real set without the masks of its test split."""
    root = tmp_path / "bare"
    shutil.copytree(real_s4, root)
    shutil.rmtree(root / "Single-source" / "s4_data" / "gt_masks" / "test")
    return root


def options(tiny: str, data: Path, out: Path, *more: object) -> list[object]:
    return ["--method", tiny, "--backbone", "r50", "--data", data, "--out", out, "--device", "cpu", *more]


def read(path: str | Path) -> tuple[dict[str, np.ndarray], str]:
    with read_submission(Path(path)) as submission:
        return {clip: submission.read(clip) for clip in submission.shapes}, submission.header.solution


def test_a_split_without_masks_gives_the_same_submission(
    avsb, untrained, tiny: str, real_s4: Path, bare: Path, tmp_path: Path
) -> None:
    weights = ("--weights", untrained("s4"), "--json")
    labelled = avsb("predict", *options(tiny, real_s4, tmp_path / "a", *weights))
    assert labelled.code == 0, labelled.err
    without = avsb("predict", *options(tiny, bare, tmp_path / "b", *weights))
    assert without.code == 0, without.err
    expected, fingerprint = read(labelled.json["submission"])
    found, unknown = read(without.json["submission"])
    assert unknown == ""
    assert len(fingerprint) == 64
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[clip], expected[clip]) for clip in expected)
    # The host scores it.
    scores = [
        avsb("score", run.json["submission"], "--data", real_s4, "--json").json["metrics"]
        for run in (labelled, without)
    ]
    assert scores[0] == scores[1]


def test_the_fingerprint_that_the_data_root_states_is_carried(
    avsb, untrained, tiny: str, bare: Path, tmp_path: Path
) -> None:
    (bare / "solutions.json").write_text(json.dumps({"s4": {"test": "ab" * 32}}))
    result = avsb("predict", *options(tiny, bare, tmp_path, "--weights", untrained("s4"), "--json"))
    assert read(result.json["submission"])[1] == "ab" * 32


def test_what_needs_ground_truth_says_so(avsb, tiny: str, bare: Path, tmp_path: Path) -> None:
    result = avsb("run", *options(tiny, bare, tmp_path))
    assert result.code == 4
    assert "The test split of" in result.err
    assert "has no masks" in result.err
    shutil.rmtree(bare / "Single-source" / "s4_data" / "gt_masks" / "val")
    result = avsb("train", *options(tiny, bare, tmp_path))
    assert result.code == 4
    assert "The val split of" in result.err


def test_the_train_split_is_predicted_although_it_cannot_be_scored(
    avsb, untrained, tiny: str, real_s4: Path, tmp_path: Path
) -> None:
    weights = ("--weights", untrained("s4"), "--split", "train", "--json")
    result = avsb("predict", *options(tiny, real_s4, tmp_path, *weights))
    assert result.code == 0, result.err
    assert read(result.json["submission"])[1] == ""


def test_a_folder_of_clips(avsb, untrained, tiny: str, real_s4: Path, tmp_path: Path) -> None:
    data = real_s4 / "Single-source" / "s4_data"
    for frames in sorted((data / "visual_frames" / "test").glob("*/*")):
        shutil.copytree(frames, tmp_path / "clips" / frames.name)
        (sound,) = (data / "audio_wav" / "test" / frames.parent.name).glob(f"{frames.name}.*")
        shutil.copy(sound, tmp_path / "clips" / frames.name)
    weights = ("--weights", untrained("s4"), "--json")
    loose = avsb("predict", *options(tiny, tmp_path / "clips", tmp_path / "a", *weights))
    assert loose.code == 0, loose.err
    expected = avsb("predict", *options(tiny, real_s4, tmp_path / "b", *weights))
    found, wanted = read(loose.json["submission"])[0], read(expected.json["submission"])[0]
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[clip], wanted[clip]) for clip in wanted)


def test_every_saved_epoch_is_predicted(avsb, tiny: str, real_s4: Path, tmp_path: Path) -> None:
    common = options(tiny, real_s4, tmp_path, "--set", "keep.every=1", "--set", "epochs=2")
    assert avsb("train", *common).code == 0
    result = avsb("predict", *common, "--saved", "all", "--split", "val", "--json")
    assert result.code == 0, result.err
    steps = [one["step"] for one in result.json]
    assert len(set(steps)) == 2
    for one in result.json:
        assert one["submission"].endswith(f"-val-step{one['step']}.npz")
        with read_submission(Path(one["submission"])) as submission:
            assert submission.header.run == f"{one['run']}-step{one['step']}"
    assert avsb("predict", *common, "--saved", "99").code == 2
