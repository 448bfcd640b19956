"""The files of a composed benchmark: masks against levels, official layout, the same bits everywhere."""

from __future__ import annotations

import csv
import json
import wave
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avsbench_harness.data.avsbench.check import check_dataset
from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.mini import write_mini
from avsbench_harness.data.mini.media import FOLDER, FOLDS, SETS, mini_media
from avsbench_harness.data.mini.write import compose
from avsbench_harness.errors import UsageError
from avsbench_harness.tasks import AVSS, CLASSES, MS3, S4, SPLITS, TASKS, Task

CLASS_OF = {
    "dog": "dog",
    "baby": "baby",
    "clock": "clock",
    "helicopter": "helicopter",
    "rooster": "hen",
    "saw": "saw",
}


def table(name: str, key: str) -> dict[str, dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return {row[key]: row for row in csv.DictReader(file)}


def described(root: Path, task: str) -> list[tuple[str, str, dict, np.ndarray]]:
    """Id, split, description, and owners (T,H,W) of each clip."""
    found = []
    for path in sorted((root / "objects" / task).rglob("*.json")):
        owners = np.asarray(Image.open(path.with_suffix(".png"))).reshape(-1, 224, 224)
        found.append((path.stem, path.parent.name, json.loads(path.read_text()), owners))
    assert len(found) == 8
    return found


@pytest.mark.parametrize("task", ["s4", "ms3", "avss"])
def test_masks_follow_from_the_objects_and_the_levels_of_the_recordings(mini: Path, task: str) -> None:
    """Masks are computed again from the description and the table of recordings."""
    levels = table("sounds.csv", "file")
    clips = {
        clip.id.split("_")[0]: clip
        for split in SPLITS
        for clip in open_dataset(mini, TASKS[task]).clips(split)
    }
    seen = 0
    for name, _, facts, owners in described(mini, task):
        clip = clips[name]
        single = task == "s4" or clip.subset == "v1s"
        expected = np.zeros(owners.shape, dtype=int)
        for sound in facts["sounds"]:
            kind = facts["objects"][sound["object"]]["kind"]
            label = (
                CLASSES.index(CLASS_OF[kind]) if task == "avss" and kind in CLASS_OF else int(task != "avss")
            )
            rows = [levels[recording] for recording in sound["recordings"]]
            assert {row["kind"] for row in rows} == {kind}
            loud = [float(row[f"db{k}"]) >= max(float(row[f"db{i}"]) for i in range(1, 6)) - 20
                    for row in rows for k in range(1, 6)]  # fmt: skip
            for t, (on, playing) in enumerate(zip(loud, sound["playing"], strict=True)):
                if playing and (single or on):
                    expected[t][owners[t] == sound["object"] + 1] = label
        for t, path in enumerate(clip.masks):
            if path is not None:
                pixels = np.asarray(Image.open(str(path).replace("labels_rgb", "labels_semantic"))).astype(
                    int
                )
                np.testing.assert_array_equal(pixels if task == "avss" else pixels // 255, expected[t])
                seen += bool(expected[t].any())
    assert seen > 8


@pytest.mark.parametrize("task", ["s4", "ms3", "avss"])
def test_media_belong_to_the_split_and_objects_are_visible(mini: Path, task: str) -> None:
    pictures, sounds = table("pictures.csv", "file"), table("sounds.csv", "file")
    for _, split, facts, owners in described(mini, task):
        assert {SETS[pictures[one["picture"]]["set"]] for one in facts["objects"]} == {split}
        used = [recording for sound in facts["sounds"] for recording in sound["recordings"]]
        assert {FOLDS[sounds[recording]["fold"]] for recording in used} == {split}
        kinds = [one["kind"] for one in facts["objects"]]
        assert len(kinds) == len(set(kinds)) >= 2
        assert len(facts["sounds"]) < len(kinds) or task != "s4"  # a silent object
        for index in range(len(kinds)):
            assert (owners == index + 1).any(axis=(1, 2)).all()


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_the_data_check_finds_no_fault(mini: Path, task: Task) -> None:
    report = check_dataset(mini, [task])
    assert report.ok
    assert report.faults == []
    dataset = open_dataset(mini, task)
    assert dataset.name == "AVS-Mini v1 variant"
    assert not dataset.synthetic
    assert dataset.counts() == {"train": 4, "val": 2, "test": 2}


#: CRC-32 over the decoded frames, masks and samples. They change only together with ``VERSION``.
CHECKSUMS = {
    "s4": {"frames": 0xEEFFEF70, "masks": 0x72BCA5F7, "audio": 0xDC9C5FB5},
    "ms3": {"frames": 0x30ACE180, "masks": 0xCF5EFDEF, "audio": 0xA2591622},
    "avss": {"masks": 0x922A81DE, "audio": 0x9AE109D2},
}
#: Content of the training split of AVSS, whose frames are compressed with loss.
AVSS_CONTENT = "bf2ca603303bef01164dd10db324a3a48dc48d57ec19332f1c2bf02be422a38d"


def checksums(root: Path, task: Task) -> dict[str, int]:
    sums: dict[str, int] = {}
    dataset = open_dataset(root, task)
    for split in SPLITS:
        for clip in dataset.clips(split):
            with wave.open(str(clip.audio)) as file:
                assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
                sums["audio"] = zlib.crc32(file.readframes(file.getnframes()), sums.get("audio", 0))
            parts = {"frames": clip.frames if task is not AVSS else (), "masks": clip.masks}
            for part, paths in parts.items():
                for path in filter(None, paths):
                    pixels = np.asarray(Image.open(path))
                    sums[part] = zlib.crc32(np.ascontiguousarray(pixels).tobytes(), sums.get(part, 0))
    return sums


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_the_data_are_bitwise_equal_on_every_machine(mini: Path, task: Task) -> None:
    assert checksums(mini, task) == CHECKSUMS[task.name]


def test_frames_of_avss_are_bitwise_equal_before_compression(mini: Path) -> None:
    assert json.loads((mini / "composed.json").read_text())["content"]["avss"]["train"] == AVSS_CONTENT


def test_more_clips_and_other_tasks_do_not_change_a_clip_but_the_seed_does(
    mini: Path, tmp_path: Path
) -> None:
    write_mini(tmp_path / "same", [MS3], (5, 1, 0), seed=3, jobs=2)
    write_mini(tmp_path / "other", [MS3], (4, 0, 0), seed=4, jobs=1)
    place = "Multi-sources/ms3_data/audio_wav/train/mixtr000003.wav"
    sounds = [(root / place).read_bytes() for root in (mini, tmp_path / "same", tmp_path / "other")]
    assert sounds[0] == sounds[1] != sounds[2]


def test_the_fingerprint_covers_content_and_not_the_sizes_of_files(mini: Path, tmp_path: Path) -> None:
    write_mini(tmp_path / "one", [S4], (2, 1, 1), seed=3, jobs=1)
    before = open_dataset(tmp_path / "one", S4).fingerprints()
    frame = next((tmp_path / "one").rglob("visual_frames/train/**/*.png"))
    Image.open(frame).save(frame, compress_level=9)
    assert open_dataset(tmp_path / "one", S4).fingerprints() == before
    description = tmp_path / "one" / "composed.json"
    content = json.loads(description.read_text())
    content["content"]["s4"]["train"] = "0" * 64
    description.write_text(json.dumps(content))
    after = open_dataset(tmp_path / "one", S4).fingerprints()
    assert (after["train"] != before["train"], after["test"]) == (True, before["test"])


def test_the_name_tells_other_sizes_and_seeds_apart(mini: Path) -> None:
    from avsbench_harness.data.mini import write

    assert write.CLIPS == (480, 80, 160)
    names = []

    def record(out: Path, tasks: object, media: object, name: str, *rest: object) -> None:
        names.append(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "_compose", record)
        for arguments in ({}, {"seed": 1}, {"clips": (4, 1, 1)}):
            write_mini(mini, [S4], **arguments)
    assert names == ["AVS-Mini v1", "AVS-Mini v1 variant", "AVS-Mini v1 variant"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clips": (0, 0, 0)}, "three numbers"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"jobs": 0}, "at least 1"),
        ({"name": "AVS-Mini v1"}, "cannot be named"),
        ({"name": "avs-mini-2"}, "cannot be named"),
        ({"name": "avsbench"}, "cannot be named"),
        ({"name": "../up"}, "cannot be named"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    arguments = {"name": "lab", "clips": (1, 0, 0), "seed": 0, "jobs": 1, **change}
    with pytest.raises(UsageError, match=message):
        compose(tmp_path / "out", [S4], mini_media(), **arguments)
    assert list(tmp_path.iterdir()) == []
