"""Builds tests/data/real_s4: a small data set in S4's layout from real silhouettes and real recordings.

    python tests/data/make_real_s4.py SOURCES [OUT]

SOURCES is a folder with

- ``davis/gt/<sequence>/NNNNN.png``: ground truth of DAVIS 2016 at 480p (0/255), sequences blackswan, dog,
  car-shadow, drift-chicane, drift-straight and libby;
- ``audio/*.hq.ogg``: four recordings of github.com/librosa/data (named in ``RECORDINGS``), each with its
  .txt attribution beside it.

OUT is this folder's ``real_s4`` unless named. The README.md there lists sources, licences and changes and is
not made by this script. What decides which silhouette sounds is the recording alone: each belongs to one
family of silhouettes (swan: whale, car: trumpet, dog: bird, small dog: speech), and a clip can show two.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import resampy
import soundfile
from numpy.typing import NDArray
from PIL import Image

SIZE, RATE, SECONDS = 224, 16000, 5
FRAMES = 5

RECORDINGS = {
    "trumpet": "sorohanro_-_solo-trumpet-06.hq.ogg",
    "bird": "456440__inspectorj__bird-whistling-robin-single-13.hq.ogg",
    "speech": "198-209-0000.hq.ogg",
    "whale": "glacier-bay-humpback.hq.ogg",
}
#: Seconds of the recordings that are used, where it is not all of them: the rest of the trumpet's is silence.
USED = {"trumpet": 3.1}
#: The silhouettes that make each sound.
FAMILIES = {
    "trumpet": ("car-shadow", "drift-chicane", "drift-straight"),
    "bird": ("dog",),
    "speech": ("libby",),
    "whale": ("blackswan",),
}
#: Two colours of each family's texture and of the backgrounds.
COLOURS = {
    "trumpet": ((214, 60, 48), (150, 24, 40)),
    "bird": ((232, 196, 92), (178, 128, 40)),
    "speech": ((96, 150, 220), (40, 76, 160)),
    "whale": ((58, 58, 66), (120, 124, 132)),
    "water": ((120, 168, 160), (84, 128, 132)),
    "road": ((168, 164, 156), (124, 122, 120)),
    "grass": ((140, 172, 104), (96, 132, 80)),
}


@dataclass(frozen=True)
class ClipPlan:
    """One clip: who sounds from which second of its recording, who else is seen.

    ``first`` and ``step`` choose the frames of the sequence; the other silhouette, moved to the right by some
    pixels, is silent and may lie in front. ``silent`` is a frame (from 0) whose second is silence and whose
    mask is empty. ``suffix`` and ``channels`` are those of the recording's file, which is five seconds long
    unless ``short``.
    """

    name: str
    split: str
    category: str
    sequence: str
    first: int
    step: int
    start: float
    ground: str
    distractor: tuple[str, int] | None = None
    in_front: bool = False
    silent: int | None = None
    suffix: str = ".flac"
    channels: int = 1
    short: bool = False


CLIPS = (
    ClipPlan("swan_01", "train", "whale", "blackswan", 0, 4, 4.25, "water", ("drift-straight", -70),
             suffix=".ogg"),
    ClipPlan("drift_01", "train", "trumpet", "drift-straight", 20, 4, 0.0, "grass"),
    ClipPlan("dog_01", "train", "bird", "dog", 0, 6, 0.0, "grass", ("libby", 40),
             suffix=".ogg", short=True, channels=2),
    ClipPlan("libby_01", "train", "speech", "libby", 0, 3, 0.0, "road", suffix=".wav"),
    ClipPlan("shadow_02", "val", "trumpet", "car-shadow", 0, 6, 0.25, "road", ("dog", 80), in_front=True),
    ClipPlan("libby_02", "val", "speech", "libby", 16, 3, 6.0, "water", suffix=".ogg"),
    ClipPlan("swan_03", "test", "whale", "blackswan", 24, 5, 24.75, "grass", ("dog", -50), in_front=True),
    ClipPlan("dog_03", "test", "bird", "dog", 30, 6, 0.0, "water", ("car-shadow", 60), silent=3),
    ClipPlan("drift_03", "test", "trumpet", "drift-chicane", 36, 3, 0.33, "road", ("libby", -60)),
)  # fmt: skip


def silhouette(sources: Path, sequence: str, number: int, shift: int = 0) -> NDArray[np.bool_]:
    """(224,224) the ground truth of a frame, squeezed by nearest neighbour and shifted to the right."""
    image = Image.open(sources / "davis" / "gt" / sequence / f"{number:05d}.png")
    mask = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.NEAREST)) > 127
    moved = np.zeros_like(mask)
    moved[:, max(shift, 0) : SIZE + min(shift, 0)] = mask[:, max(-shift, 0) : SIZE - max(shift, 0)]
    return moved


def texture(name: str, slope: float) -> NDArray[np.uint8]:
    """(224,224,3) waves between two colours; coarse steps keep the PNG small."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    wave = 0.5 + 0.25 * np.sin(9 * (x + slope * y)) + 0.25 * np.sin(14 * (y - slope * x))
    weight = np.round(wave * 8)[..., None] / 8
    first, second = (np.array(colour) for colour in COLOURS[name])
    return np.round(first * (1 - weight) + second * weight).astype(np.uint8)


def family_of(sequence: str) -> str:
    return next(category for category, sequences in FAMILIES.items() if sequence in sequences)


def draw(sources: Path, clip: ClipPlan, k: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Frame (224,224,3) and mask (224,224) of 0 and 255: the visible part of what sounds."""
    mask = silhouette(sources, clip.sequence, clip.first + k * clip.step)
    image = texture(clip.ground, 0.3)
    if clip.distractor is not None:
        sequence, shift = clip.distractor
        other = silhouette(sources, sequence, 4 * k, shift)
        if clip.in_front:
            mask &= ~other
        image[other] = texture(family_of(sequence), -0.8)[other]
    image[mask] = texture(clip.category, -0.8)[mask]
    sounding = mask if k != clip.silent else np.zeros_like(mask)
    return image, sounding.astype(np.uint8) * np.uint8(255)


def recording(sources: Path, clip: ClipPlan) -> NDArray[np.float64]:
    """(n,channels) at 16 kHz: five seconds from ``start``; a shorter recording is repeated after a pause."""
    samples, rate = soundfile.read(sources / "audio" / RECORDINGS[clip.category], always_2d=True)
    samples = samples[: int(USED.get(clip.category, len(samples) / rate) * rate)]
    samples = samples - samples.mean(axis=0)  # the whale's lies far above zero
    if clip.channels == 1:
        samples = samples.mean(axis=1, keepdims=True)
    if rate != RATE:
        samples = resampy.resample(samples, rate, RATE, axis=0)
    pause = np.zeros((RATE // 10, samples.shape[1]))
    wanted = slice(int(clip.start * RATE), int((clip.start + SECONDS) * RATE))
    while len(samples) < wanted.stop and not clip.short:
        samples = np.concatenate([samples, pause, samples])
    samples = samples[wanted].copy()
    if clip.silent is not None:
        samples[clip.silent * RATE : (clip.silent + 1) * RATE] = 0
    return 0.7 * samples / np.abs(samples).max()


def build(sources: Path, out: Path) -> None:
    """Write the clips and their table, replacing those that are there."""
    shutil.rmtree(out / "Single-source", ignore_errors=True)
    data = out / "Single-source" / "s4_data"
    rows = ["name,start,category,split"]
    for clip in CLIPS:
        place = Path(clip.split, clip.category)
        folders = [data / kind / place / clip.name for kind in ("visual_frames", "gt_masks")]
        audio = data / "audio_wav" / place
        for folder in (*folders, audio):
            folder.mkdir(parents=True, exist_ok=True)
        for k in range(FRAMES):
            frame, mask = draw(sources, clip, k)
            Image.fromarray(frame).save(folders[0] / f"{clip.name}_{k + 1}.png", optimize=True)
            if k == 0 or clip.split != "train":
                Image.fromarray(mask).save(folders[1] / f"{clip.name}_{k + 1}.png", optimize=True)
        soundfile.write(audio / f"{clip.name}{clip.suffix}", recording(sources, clip), RATE)
        rows.append(f"{clip.name},{int(clip.start)},{clip.category},{clip.split}")
    (out / "Single-source" / "s4_meta_data.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sources", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent / "real_s4")
    arguments = parser.parse_args()
    build(arguments.sources, arguments.out)


if __name__ == "__main__":
    main()
