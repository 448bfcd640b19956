"""Media of the user: cut-outs and recordings from folders or tables, distributed to the splits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from avsbench_harness.data.avsbench.tables import read_media
from avsbench_harness.data.avsbench.writer import RATE
from avsbench_harness.data.clip import CLIP_ID_RULE, is_clip_id
from avsbench_harness.data.errors import BadFileError
from avsbench_harness.data.mini.media import Media, Picture, Recording
from avsbench_harness.data.mini.sound import SECONDS, samples_of
from avsbench_harness.data.mini.sprites import cut_out
from avsbench_harness.data.synth.draws import Draws
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.tasks import SPLITS, Split

# Suffixes of the files that are used from a folder.
_PICTURES = (".png", ".webp", ".gif", ".tif", ".tiff")
_SOUNDS = (".wav", ".flac", ".ogg")
# Level of digital silence, and the level that the loudest second must reach, tenths of dBFS.
_SILENCE, _LOWEST = -1800, -600
# Files of a kind per split are distributed in these proportions, with at least one in each.
_TENTHS = {"train": 7, "val": 1, "test": 2}


def collect_media(pictures: Path, sounds: Path, seed: int) -> Media:
    """Read the user's cut-outs and recordings.

    Args:
        pictures: a folder with one folder of images per kind, or a table (csv) with the columns ``file``,
            ``kind`` and ``split``. Images have an alpha channel.
        sounds: the same with recordings (wav, flac, ogg), of which the first five seconds are used.
        seed: seed of the distribution of a folder's files to the splits.

    Raises:
        MissingDataError: a folder or a file is missing.
        BadFileError: a table is malformed, or a picture has no transparency.
        UsageError: a kind has too few files, a recording cannot be read or is silent, or a name is not
            allowed.
    """
    cut_outs: dict[Split, list[Picture]] = {split: [] for split in SPLITS}
    recordings: dict[Split, list[Recording]] = {split: [] for split in SPLITS}
    for path, kind, split in _files(pictures, _PICTURES, seed, "pictures"):
        cut_out(path)  # an unusable picture is reported before anything is composed
        cut_outs[split].append(Picture(kind, path))
    for path, kind, split in _files(sounds, _SOUNDS, seed, "recordings"):
        recordings[split].append(Recording(kind, path, _levels(path)))
    return Media(
        {split: tuple(found) for split, found in cut_outs.items()},
        {split: tuple(found) for split, found in recordings.items()},
    )


def _files(place: Path, suffixes: tuple[str, ...], seed: int, what: str) -> Iterator[tuple[Path, str, Split]]:
    """Yield (file, kind, split) of a table or a folder."""
    if place.is_file():
        for name, kind, split in read_media(place):
            yield place.parent / name, kind, split
        return
    if not place.is_dir():
        raise MissingDataError(f"There is no folder or table {place} with {what}.")
    folders = sorted(folder for folder in place.iterdir() if folder.is_dir() and folder.name[0] != ".")
    if not folders:
        raise UsageError(f"{place} has no folders; it needs one folder with {what} for each kind.")
    for folder in folders:
        if not is_clip_id(folder.name):
            raise UsageError(f"{folder} cannot be the name of a kind; names have {CLIP_ID_RULE}.")
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
        if len(files) < len(SPLITS):
            raise UsageError(
                f"{folder} has {len(files)} {what} ({', '.join(suffixes)}); three are needed, one for each "
                "split. Add some, or pass a table with the columns file, kind and split."
            )
        for split, chosen in _distribute(files, Draws(seed, f"compose/{what}/{folder.name}")).items():
            for path in chosen:
                yield path, folder.name, split


def _distribute(files: list[Path], draws: Draws) -> dict[Split, list[Path]]:
    """Distribute files to the splits at random."""
    shuffled = [files[index] for index in draws.sample(len(files), len(files))]
    val, test = (max(1, len(files) * _TENTHS[split] // 10) for split in ("val", "test"))
    return {"train": shuffled[val + test :], "val": shuffled[:val], "test": shuffled[val : val + test]}


def _levels(path: Path) -> tuple[int, ...]:
    """The level of each second of a recording, tenths of dBFS."""
    if not path.is_file():
        raise MissingDataError(f"There is no recording {path}.")
    seconds = samples_of(path).reshape(SECONDS, RATE) / 32768
    power = np.mean(seconds * seconds, axis=1)
    levels = tuple(_SILENCE if value < 1e-18 else round(100 * math.log10(value)) for value in power.tolist())
    if max(levels) < _LOWEST:
        raise BadFileError(path, f"is silent: no second of the first {SECONDS} s reaches {_LOWEST / 10} dBFS")
    return levels
