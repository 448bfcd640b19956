"""The media that clips are composed of: cut-out pictures and recordings of kinds of objects, per split."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from avsbench_harness.tasks import CLASSES, Split

#: The folder of AVS-Mini's media.
FOLDER = Path(__file__).parent / "media"

#: Splits of the folds of ESC-10; recordings of one source are in one fold.
FOLDS: dict[str, Split] = {"1": "train", "2": "train", "3": "train", "4": "val", "5": "test"}
#: Splits of the sets of drawings.
SETS: dict[str, Split] = {
    "noto": "train",
    "noto1": "train",
    "twemoji": "train",
    "emojione2": "train",
    "fxemoji": "val",
    "fluent": "test",
    "fluentflat": "test",
}

# Kinds whose name differs from that of their AVSBench class.
_CLASS_NAMES = {"rooster": "hen"}


@dataclass(frozen=True)
class Picture:
    """A cut-out: an image file with transparency."""

    kind: str
    path: Path


@dataclass(frozen=True)
class Recording:
    """A recording.

    Attributes:
        kind: the kind of its source.
        path: the file.
        levels: root mean square of each second, tenths of dBFS.
    """

    kind: str
    path: Path
    levels: tuple[int, ...]

    @property
    def loudest(self) -> int:
        """Level of the loudest second, tenths of dBFS."""
        return max(self.levels)


M = TypeVar("M", Picture, Recording)


@dataclass(frozen=True)
class Media:
    """Cut-outs and recordings of the splits.

    Attributes:
        pictures: the cut-outs of each split.
        recordings: the recordings of each split.
    """

    pictures: dict[Split, tuple[Picture, ...]]
    recordings: dict[Split, tuple[Recording, ...]]

    def kinds(self, split: Split) -> list[str]:
        """Return the kinds of which the split has a picture and a recording, sorted."""
        return sorted(set(self._pictures[split]) & set(self._recordings[split]))

    def pictures_of(self, split: Split, kind: str) -> list[Picture]:
        """Return a kind's pictures in a split."""
        return self._pictures[split][kind]

    def recordings_of(self, split: Split, kind: str) -> list[Recording]:
        """Return a kind's recordings in a split."""
        return self._recordings[split][kind]

    @cached_property
    def _pictures(self) -> dict[Split, dict[str, list[Picture]]]:
        return {split: _by_kind(pictures) for split, pictures in self.pictures.items()}

    @cached_property
    def _recordings(self) -> dict[Split, dict[str, list[Recording]]]:
        return {split: _by_kind(recordings) for split, recordings in self.recordings.items()}


def mini_media() -> Media:
    """Return the media of AVS-Mini."""
    pictures: dict[Split, list[Picture]] = {"train": [], "val": [], "test": []}
    recordings: dict[Split, list[Recording]] = {"train": [], "val": [], "test": []}
    for row in _table("pictures.csv"):
        path = FOLDER / "pictures" / row["kind"] / row["file"]
        pictures[SETS[row["set"]]].append(Picture(row["kind"], path))
    for row in _table("sounds.csv"):
        path = FOLDER / "sounds" / row["kind"] / row["file"]
        levels = tuple(round(10 * float(row[f"db{second}"])) for second in range(1, 6))
        recordings[FOLDS[row["fold"]]].append(Recording(row["kind"], path, levels))
    return Media(
        {split: tuple(found) for split, found in pictures.items()},
        {split: tuple(found) for split, found in recordings.items()},
    )


def class_index(kind: str) -> int | None:
    """Return the class of a kind in AVSBench-semantic, ``None`` if it has no class."""
    name = _CLASS_NAMES.get(kind, kind)
    return CLASSES.index(name) if name in CLASSES[1:] else None


def _by_kind(media: tuple[M, ...]) -> dict[str, list[M]]:
    found: dict[str, list[M]] = {}
    for one in media:
        found.setdefault(one.kind, []).append(one)
    return found


def _table(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
