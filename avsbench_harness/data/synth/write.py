"""Writes a synthetic benchmark to disk in the official layout of its task."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from avsbench_harness.data.avsbench.writer import GeneratedClip, Progress, new_folder, write_clips
from avsbench_harness.data.synth.kinds import KINDS, S4_CATEGORIES
from avsbench_harness.data.synth.scene import Scene, Style
from avsbench_harness.errors import UsageError
from avsbench_harness.files import write_json, write_text
from avsbench_harness.tasks import CLASSES, SPLITS, Split, Task

#: Changes whenever a pixel or a sample of the same arguments changes.
VERSION = 1

S4_STYLE = Style("s4", seconds=5, objects=(2, 3), changing=False, channels=2)
MS3_STYLE = Style("ms3", seconds=5, objects=(2, 4), changing=True, channels=1)
AVSS_STYLES = {
    "v1s": Style("v1s", seconds=5, objects=(2, 3), changing=False, channels=1),
    "v1m": Style("v1m", seconds=5, objects=(2, 4), changing=True, channels=1),
    "v2": Style("v2", seconds=10, objects=(2, 4), changing=True, channels=1),
}
#: Subsets of the AVSS clips, cyclically.
_SUBSETS = ("v1s", "v2", "v1m", "v2")
#: Number of kinds that a task can show.
_KINDS = {"s4": len(S4_CATEGORIES), "ms3": len(S4_CATEGORIES), "avss": len(KINDS)}


@dataclass(frozen=True)
class _Item:
    """One clip to write, as sent to a worker."""

    split: Split
    index: int
    seed: int
    kinds: int

    @property
    def id(self) -> str:
        """Eleven characters, like a YouTube id; independent of the number of clips."""
        return f"syn{self.split[:2]}{self.index:06d}"

    def scene(self, style: Style) -> Scene:
        return Scene(style, self.split, self.index, self.seed, self.kinds)


def _make_clip(task: Task, item: _Item) -> GeneratedClip:
    """Draw one clip of a task."""
    subset = _SUBSETS[item.index % len(_SUBSETS)] if task.semantic else ""
    style = AVSS_STYLES[subset] if task.semantic else {"s4": S4_STYLE, "ms3": MS3_STYLE}[task.name]
    scene = item.scene(style)
    sounding = [kind.index for kind in scene.sounding]
    return GeneratedClip(
        id=item.id,
        split=item.split,
        frames=scene.picture.frames,
        labels=scene.classes(),
        samples=scene.sound.samples,
        category=S4_CATEGORIES[sounding[0]] if task.name == "s4" else "",
        classes=tuple(CLASSES[index + 1] for index in sounding),
        subset=subset,
    )


def write_synthetic(
    out: Path,
    task: Task,
    clips: tuple[int, int, int],
    seed: int,
    kinds: int | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a synthetic benchmark in the official layout of ``task``, atomically.

    Pixels and samples depend only on the task, the seed, ``kinds`` and ``VERSION``: not on the machine,
    ``jobs`` or the number of clips (more clips are appended to each split). The bytes of the files may differ
    between versions of Pillow, but not the decoded values, except those of the JPEG frames of AVSS.

    Args:
        out: the folder to write, a data root; it must not exist or be empty.
        task: S4, MS3 or AVSS.
        clips: numbers of training, validation and test clips.
        seed: 0 .. 2**64 - 1.
        kinds: number of kinds of objects, from the first; all 23 (AVSS: 70) if ``None``.
        jobs: worker processes; by default one per core.
        progress: called with (clips written, total clips).

    Raises:
        UsageError: ``out`` is not empty, or a number is out of range.
        AvsbError: the disk is full or cannot be written, or a worker process died.
    """
    most = _KINDS[task.name]
    kinds = most if kinds is None else kinds
    jobs = (os.cpu_count() or 1) if jobs is None else jobs
    _check(clips, seed, kinds, most, jobs)
    items = [
        _Item(split, index, seed, kinds)
        for split, count in zip(SPLITS, clips, strict=True)
        for index in range(count)
    ]
    with new_folder(out) as root:
        write_clips(root, task, partial(_make_clip, task), items, jobs, progress)
        _describe(root, task, clips, seed, kinds)


def _check(clips: tuple[int, int, int], seed: int, kinds: int, most: int, jobs: int) -> None:
    if len(clips) != len(SPLITS) or min(clips) < 0 or sum(clips) == 0 or max(clips) > 999_999:
        raise UsageError(f"clips are three numbers, TRAIN,VAL,TEST, such as 40,10,10; got {clips}.")
    if not 0 <= seed < 2**64:
        raise UsageError(f"The seed must lie between 0 and 2**64 - 1; got {seed}.")
    if not 2 <= kinds <= most:
        raise UsageError(f"kinds must lie between 2 and {most} for this task; got {kinds}.")
    if jobs < 1:
        raise UsageError(f"jobs is a number of processes, at least 1; got {jobs}.")


def _describe(root: Path, task: Task, clips: tuple[int, int, int], seed: int, kinds: int) -> None:
    """Write the markers of synthetic data."""
    counts = dict(zip(SPLITS, clips, strict=True))
    facts = {"format": 1, "version": VERSION, "task": task.name, "seed": seed, "clips": counts}
    write_json(root / "synthetic.json", {**facts, "kinds": kinds, "synthetic": True})
    write_text(
        root / "SYNTHETIC.md",
        _NOTE.format(title=task.title, seed=seed, kinds=kinds, version=VERSION, **counts),
    )


_NOTE = """# Synthetic data

This folder is **not** AVSBench. It is a synthetic benchmark in the layout of {title}, drawn by
avsbench-harness (generator version {version}, seed {seed}, {kinds} kinds of objects): {train} training,
{val} validation and {test} test clips.

Objects move over textured backgrounds. Each kind has its own shape, texture and timbre. Some of the visible
objects sound; they are drawn independently of the picture. About one second in eleven is silent and its mask
is empty. The names of categories and classes are those of AVSBench, without their meaning.

Scores on these clips are not comparable with scores on AVSBench.
"""
