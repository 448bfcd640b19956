"""Folders of clips without a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from avsbench_harness.data.avsbench.clip_folder import open_clip_folder
from avsbench_harness.errors import UsageError
from avsbench_harness.tasks import AVSS, S4


def write_clip(folder: Path, frames: list[str], recordings: tuple[str, ...] = ("audio.wav",)) -> None:
    for name in frames:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)
    for name in recordings:
        soundfile.write(folder / name, np.zeros(800), 16_000)


def test_clips_have_their_frames_in_order(tmp_path: Path) -> None:
    write_clip(tmp_path / "b", [f"frames/{k}.jpg" for k in range(11)][1:])
    write_clip(tmp_path / "a", ["x_2.png", "x_1.png"], ("other.flac",))
    (tmp_path / "notes").mkdir()
    dataset = open_clip_folder(tmp_path, AVSS)
    assert dataset is not None
    one, two = dataset.clips("test")
    assert (one.id, two.id) == ("a", "b")
    assert [path.name for path in one.frames] == ["x_1.png", "x_2.png"]
    assert [path.name for path in two.frames] == [f"{k}.jpg" for k in range(1, 11)]
    assert one.masks == (None, None)
    assert one.audio == tmp_path / "a" / "other.flac"
    assert dataset.clips("val") == []
    assert dataset.name == "custom"
    assert len(dataset.fingerprint()) == 64


def test_other_folders_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert open_clip_folder(tmp_path, S4) is None


@pytest.mark.parametrize(
    ("frames", "recordings", "message"),
    [
        (6, ("audio.wav",), "has 6 frames, but clips of s4 have at most 5"),
        (2, (), "has 0 recordings"),
        (2, ("a.wav", "b.ogg"), "has 2 recordings"),
    ],
)
def test_clips_that_cannot_be_used(
    tmp_path: Path, frames: int, recordings: tuple[str, ...], message: str
) -> None:
    write_clip(tmp_path / "a", [f"{k}.png" for k in range(frames)], recordings)
    with pytest.raises(UsageError, match=message):
        open_clip_folder(tmp_path, S4)
