"""Tiny data roots in the official layouts, with the quirks of the real tables.

The names of files are written out here a second time, independently of the readers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from avsbench_harness.data.clip import Clip

WriteWav = Callable[..., Path]

# Names begin with - and _, start seconds reach 6, and one clip of every split.
S4_ROWS = [
    ("-_wznbUu3DY", 0, "helicopter", "train"),
    ("_d9u2CymIxc", 6, "horse_clip-clop", "train"),
    ("0yQFLuXBbTo", 5, "helicopter", "val"),
    ("-9u2CymIx_c", 1, "horse_clip-clop", "test"),
]
MS3_ROWS = [("xv7eM6-UmkY_36", "val"), ("jlhuZfcw61w", "train"), ("-q5RDUm2Hnk_1", "test")]
# vid, uid, s_min, s_sec (which reaches 60), a_obj (with its oddities), split, label
AVSS_ROWS = [
    ("__GOGlHL23s", "__GOGlHL23s_4000_9000", 0, 4, "bird", "val", "v1s"),
    ("-_wznbUu3DY", "-_wznbUu3DY_0_5000", 0, 0, "helicopter", "train", "v1s"),
    ("zVfLHhs9uv8", "zVfLHhs9uv8_3000_8000", 0, 3, "h orse", "test", "v1s"),
    ("_19NVGk6Zt8_0", "_19NVGk6Zt8_0", 0, 0, "background", "train", "v1m"),
    ("_-apT0tfo6U", "_-apT0tfo6U_60000_70000", 0, 60, "girl_off-the-screen", "train", "v2"),
]


class Tree:
    """A data root under construction.

    Attributes:
        root: the data root.
        files: every file that a clip of the tables should name.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: set[Path] = set()

    def s4(self, folder: str = "Single-source", rows: list = S4_ROWS, suffix: str = ".wav") -> Path:
        top = self.root / folder
        data = top / "s4_data"
        for name, _, category, split in rows:
            place = f"{split}/{category}"
            for k in "12345":
                self.frame(data / "visual_frames" / place / name / f"{name}_{k}.png")
            for k in "1" if split == "train" else "12345":
                self.object_mask(data / "gt_masks" / place / name / f"{name}_{k}.png")
            self.sound(data / "audio_wav" / place / (name + suffix))
            self.stray(data / "raw_videos" / place / f"{name}.mp4")
        _csv(top / "s4_meta_data.csv", "name,start,category,split", rows)
        return top

    def ms3(self, folder: str = "Multi-sources", rows: list = MS3_ROWS) -> Path:
        top = self.root / folder
        data = top / "ms3_data"
        for name, split in rows:
            for k in "12345":
                self.frame(data / "visual_frames" / name / f"{name}.mp4_{k}.png")
                self.object_mask(data / "gt_masks" / split / name / f"{name}_{k}.png")
            self.sound(data / "audio_wav" / split / f"{name}.wav")
        _csv(top / "ms3_meta_data.csv", "video_id,split", rows)
        return top

    def avss(
        self, folder: str = "AVSBench_semantic", rows: list = AVSS_ROWS, labels: str = "labels_rgb"
    ) -> Path:
        top = self.root / folder
        for _, uid, _, _, _, split, label in rows:
            clip = top / label / uid
            count = 10 if label == "v2" else 5
            for k in range(count):
                self.frame(clip / "frames" / f"{k}.jpg", size=(48, 32))
            for k in range(1 if (label, split) == ("v1s", "train") else count):
                self.semantic_mask(clip / labels / f"{k}.png", rgb=labels == "labels_rgb")
            self.sound(clip / "audio.wav", count)
            self.stray(clip / labels / "Thumbs.db")
            self.stray(top / label / ".DS_Store")
        _csv(top / "metadata.csv", "vid,uid,s_min,s_sec,a_obj,split,label", rows)
        return top

    def synthetic(self, task: str, clips: object, folder: str = ".") -> None:
        """Mark a folder as synthetic, with these numbers of clips."""
        record = {"format": 1, "task": task, "seed": 0, "clips": clips}
        (self.root / folder / "synthetic.json").write_text(json.dumps(record))

    def frame(self, path: Path, size: tuple[int, int] = (224, 224)) -> None:
        self._save(Image.new("RGB", size, (90, 120, 30)), path)

    def object_mask(self, path: Path) -> None:
        mask = np.zeros((224, 224), np.uint8)
        mask[50:100, 60:90] = 255
        self._save(Image.fromarray(mask), path)

    def semantic_mask(self, path: Path, rgb: bool) -> None:
        """A rectangle of class 28 (guitar), as colours or as indices."""
        labels = np.zeros((32, 48), np.uint8)
        labels[5:20, 7:30] = 28
        colours = np.zeros((32, 48, 3), np.uint8)
        colours[labels == 28] = (
            64,
            64,
            128,
        )  # 28 is 34 in octal: 4 is blue's high bit, 3 the next of red, green
        self._save(Image.fromarray(colours if rgb else labels), path)

    def sound(self, path: Path, seconds: int = 5) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros((seconds * 8000, 2)), 8000)
        self.files.add(path)

    def stray(self, path: Path) -> None:
        """A file that no clip names."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"stray")

    def _save(self, image: Image.Image, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        self.files.add(path)


def _csv(path: Path, header: str, rows: list) -> None:
    """As released: no newline at the end."""
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty data root."""
    root = tmp_path / "data root"
    root.mkdir()
    return Tree(root)


@pytest.fixture
def meta() -> Path:
    """The real tables of AVSBench-semantic."""
    return Path(__file__).parents[1] / "fixtures" / "avsbench_meta"


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator whose seed is printed when the test fails."""
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    return np.random.default_rng(seed)


@pytest.fixture
def write_wav(tmp_path: Path) -> WriteWav:
    """Write samples as a 16-bit wav and return its path."""

    def write(
        samples: np.ndarray, rate: int = 16_000, name: str = "clip.wav", subtype: str = "PCM_16"
    ) -> Path:
        soundfile.write(tmp_path / name, samples, rate, subtype=subtype)
        return tmp_path / name

    return write


@pytest.fixture
def make_clip() -> Callable[..., Clip]:
    """A clip of ``frames`` frames with that audio; its pictures are never opened."""

    def make(audio: Path | None = None, logmel: Path | None = None, frames: int = 5) -> Clip:
        pictures = tuple(Path(f"{index}.png") for index in range(frames))
        return Clip("a-clip", pictures, (None,) * frames, audio, logmel, "bird", "s4")

    return make


@pytest.fixture
def noise() -> Callable[[int], np.ndarray]:
    """Reproducible noise of a number of samples at half of full scale."""
    return lambda count: np.random.default_rng(7).uniform(-0.5, 0.5, count)
