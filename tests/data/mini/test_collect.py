"""Composing from the user's own cut-outs and recordings."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from avsbench_harness.data.avsbench.check import check_dataset
from avsbench_harness.data.errors import BadFileError
from avsbench_harness.data.mini.collect import collect_media
from avsbench_harness.data.mini.write import compose
from avsbench_harness.errors import AvsbError, MissingDataError, UsageError
from avsbench_harness.tasks import AVSS, MS3, S4, SPLITS


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Ellipses of two kinds, and tones of 6 s at 22.05 kHz, of which the first second is quiet."""
    for number, kind in enumerate(("frog", "kettle")):
        for folder in ("pictures", "sounds"):
            (tmp_path / folder / kind).mkdir(parents=True)
        for k in range(10):
            y, x = np.mgrid[-1:1:40j, -1:1:60j]
            alpha = np.uint8(255) * (x * x + y * y < 1).astype(np.uint8)
            pixels = np.stack([np.full_like(alpha, 25 * k), alpha // 2, alpha // 3, alpha], axis=2)
            Image.fromarray(pixels).save(tmp_path / "pictures" / kind / f"{k}.png")
            time = np.arange(6 * 22050) / 22050
            tone = np.sin(2 * np.pi * (300 + 700 * number + 10 * k) * time) * np.where(time < 1, 0.001, 0.25)
            soundfile.write(tmp_path / "sounds" / kind / f"{k}.wav", np.stack([tone, tone], axis=1), 22050)
    return tmp_path


def test_files_are_distributed_to_the_splits(own: Path) -> None:
    media = collect_media(own / "pictures", own / "sounds", seed=0)
    for found in (media.pictures, media.recordings):
        assert {split: len(found[split]) for split in SPLITS} == {"train": 14, "val": 2, "test": 4}
        assert len({one.path for split in SPLITS for one in found[split]}) == 20
    assert media.kinds("val") == ["frog", "kettle"]
    again, other = (collect_media(own / "pictures", own / "sounds", seed=seed) for seed in (0, 1))
    assert again == media
    assert other.pictures["val"] != media.pictures["val"] or other.pictures["test"] != media.pictures["test"]
    # A sine of amplitude 0.25 has -15.05 dBFS, and 0.001 has -63.0 dBFS.
    assert media.recordings["train"][0].levels == pytest.approx((-630, -151, -151, -151, -151), abs=2)


def test_a_table_decides_the_splits(own: Path) -> None:
    tables = {}
    for what, suffix in (("pictures", "png"), ("sounds", "wav")):
        rows = [
            f"{what}/{kind}/{k}.{suffix},{kind},{split}"
            for kind in ("frog", "kettle")
            for k, split in enumerate(SPLITS)
        ]
        tables[what] = own / f"{what}.csv"
        tables[what].write_text("file,kind,split\n" + "\n".join(rows))
    media = collect_media(tables["pictures"], tables["sounds"], seed=0)
    assert [one.path.name for one in media.pictures["val"]] == ["1.png", "1.png"]
    compose(own / "out", [S4, MS3], media, "lab", (2, 1, 1), seed=0, jobs=1)
    report = check_dataset(own / "out", [S4, MS3])
    assert report.ok
    with pytest.raises(UsageError, match="classes of AVSBench-semantic"):
        compose(own / "semantic", [AVSS], media, "lab", (2, 1, 1), seed=0, jobs=1)


def test_files_of_a_table_lie_below_it(own: Path) -> None:
    (own / "bad.csv").write_text("file,kind,split\n../secret.png,frog,train\n")
    with pytest.raises(BadFileError, match=r"no path below the table's folder"):
        collect_media(own / "bad.csv", own / "sounds", seed=0)


def silence(own: Path) -> None:
    soundfile.write(own / "sounds/frog/0.wav", np.zeros(16000), 16000)


def opaque(own: Path) -> None:
    Image.new("RGB", (9, 9)).save(own / "pictures/frog/0.png")


def noise(own: Path) -> None:
    (own / "sounds/frog/0.wav").write_bytes(b"RIFF nothing")


def few(own: Path) -> None:
    for k in range(8):
        (own / f"pictures/frog/{k}.png").unlink()


def gone(own: Path) -> None:
    shutil.rmtree(own / "sounds")


def flat(own: Path) -> None:
    shutil.rmtree(own / "pictures")
    (own / "pictures").mkdir()


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (silence, UsageError, "is silent"),
        (opaque, BadFileError, "has no transparency"),
        (noise, UsageError, "cannot be read"),
        (few, UsageError, "frog has 2 pictures .* three are needed"),
        (gone, MissingDataError, "no folder or table"),
        (flat, UsageError, "one folder with pictures for each kind"),
    ],
)
def test_unusable_media_are_refused_with_a_sentence(
    own: Path, damage, error: type[AvsbError], message: str
) -> None:
    damage(own)
    with pytest.raises(error, match=message):
        collect_media(own / "pictures", own / "sounds", seed=0)
