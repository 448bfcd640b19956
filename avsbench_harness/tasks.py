"""The three tasks of AVSBench: frames, classes and splits.

Sources: Zhou et al., "Audio-Visual Segmentation" (ECCV 2022; S4 and MS3) and "Audio-Visual Segmentation
with Semantics" (2023; AVSS); counts from the published tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from avsbench_harness.errors import unknown

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

#: Side of the square ground-truth masks that every canonical protocol scores, in pixels.
MASK_SIZE = 224

#: Class names of AVSBench-semantic; the index is the class index of masks and models (0 = background).
CLASSES: tuple[str, ...] = (
    "background", "accordion", "airplane", "axe", "baby", "bassoon", "bell", "bird", "boat", "boy", "bus",
    "car", "cat", "cello", "clarinet", "clipper", "clock", "dog", "donkey", "drum", "duck", "elephant",
    "emergency-car", "erhu", "flute", "frying-food", "girl", "goose", "guitar", "gun", "guzheng",
    "hair-dryer", "handpan", "harmonica", "harp", "helicopter", "hen", "horse", "keyboard", "leopard",
    "lion", "man", "marimba", "missile-rocket", "motorcycle", "mower", "parrot", "piano", "pig", "pipa",
    "saw", "saxophone", "sheep", "sitar", "sorna", "squirrel", "tabla", "tank", "tiger", "tractor", "train",
    "trombone", "truck", "trumpet", "tuba", "ukulele", "utv", "vacuum-cleaner", "violin", "wolf", "woman",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One task of the benchmark.

    Attributes:
        name: ``s4``, ``ms3`` or ``avss``, as used on the command line and in files.
        title: the name for tables.
        frames: frames of the longest clip, one per second; the ``T`` of a batch.
        channels: output channels of a model, 1 (probability of sound) or 71 (class scores).
        clips: official number of clips per split.
    """

    name: str
    title: str
    frames: int
    channels: int
    clips: dict[Split, int]

    @property
    def semantic(self) -> bool:
        """Whether masks hold class indices (avss) instead of a sounding foreground."""
        return self.channels > 1


S4 = Task("s4", "S4 (single source)", 5, 1, {"train": 3452, "val": 740, "test": 740})
MS3 = Task("ms3", "MS3 (multiple sources)", 5, 1, {"train": 296, "val": 64, "test": 64})
AVSS = Task("avss", "AVSS (semantic)", 10, len(CLASSES), {"train": 8498, "val": 1304, "test": 1554})

TASKS: dict[str, Task] = {task.name: task for task in (S4, MS3, AVSS)}


def get_task(name: str) -> Task:
    """The task of that name (case does not matter); an unknown one is a ``UsageError``."""
    try:
        return TASKS[name.lower()]
    except KeyError:
        raise unknown("task", name, TASKS) from None


def get_split(name: str) -> Split:
    """The split of that name; an unknown one is a ``UsageError``."""
    for split in SPLITS:
        if name.lower() == split:
            return split
    raise unknown("split", name, SPLITS)
