"""Writes a synthetic benchmark to disk in the official layout of its task."""

from __future__ import annotations

import csv
import io
import os
import signal
import sys
import tempfile
import threading
import wave
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbench_harness.data.masks import colourise
from avsbench_harness.data.synth.kinds import KINDS, S4_CATEGORIES
from avsbench_harness.data.synth.scene import Bytes, Scene, Style
from avsbench_harness.data.synth.sounds import RATE
from avsbench_harness.errors import AvsbError, UsageError
from avsbench_harness.files import write_json, write_text
from avsbench_harness.tasks import CLASSES, SPLITS, Split, Task

#: Changes whenever a pixel or a sample of the same arguments changes.
VERSION = 1

Row = tuple[str, ...]
Progress = Callable[[int, int], None]

S4_STYLE = Style("s4", seconds=5, objects=(2, 3), changing=False, channels=2)
MS3_STYLE = Style("ms3", seconds=5, objects=(2, 4), changing=True, channels=1)
AVSS_STYLES = {
    "v1s": Style("v1s", seconds=5, objects=(2, 3), changing=False, channels=1),
    "v1m": Style("v1m", seconds=5, objects=(2, 4), changing=True, channels=1),
    "v2": Style("v2", seconds=10, objects=(2, 4), changing=True, channels=1),
}
#: Subsets of the AVSS clips, cyclically.
_SUBSETS = ("v1s", "v2", "v1m", "v2")


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


def _write_s4(root: Path, item: _Item) -> Row:
    scene = item.scene(S4_STYLE)
    category = S4_CATEGORIES[scene.sounding[0].index]
    place, data = Path(item.split, category), root / "Single-source" / "s4_data"
    masks = _binary(scene)
    for k, frame in enumerate(scene.picture.frames, start=1):
        _png(data / "visual_frames" / place / item.id / f"{item.id}_{k}.png", frame)
        if k == 1 or item.split != "train":
            _png(data / "gt_masks" / place / item.id / f"{item.id}_{k}.png", masks[k - 1])
    _wav(data / "audio_wav" / place / f"{item.id}.wav", scene.sound.samples)
    return item.id, "0", category, item.split


def _write_ms3(root: Path, item: _Item) -> Row:
    scene, data = item.scene(MS3_STYLE), root / "Multi-sources" / "ms3_data"
    masks = _binary(scene)
    for k, frame in enumerate(scene.picture.frames, start=1):
        _png(data / "visual_frames" / item.id / f"{item.id}.mp4_{k}.png", frame)
        _png(data / "gt_masks" / item.split / item.id / f"{item.id}_{k}.png", masks[k - 1])
    _wav(data / "audio_wav" / item.split / f"{item.id}.wav", scene.sound.samples)
    return item.id, item.split


def _write_avss(root: Path, item: _Item) -> Row:
    subset = _SUBSETS[item.index % len(_SUBSETS)]
    style = AVSS_STYLES[subset]
    scene = item.scene(style)
    uid = item.id if subset == "v1m" else f"{item.id}_0_{1000 * style.seconds}"
    folder, labels = root / "AVSBench_semantic" / subset / uid, scene.classes()
    for k, frame in enumerate(scene.picture.frames):
        _jpeg(folder / "frames" / f"{k}.jpg", frame)
        if k == 0 or (subset, item.split) != ("v1s", "train"):
            _png(folder / "labels_semantic" / f"{k}.png", labels[k])
            _png(folder / "labels_rgb" / f"{k}.png", colourise(labels[k]))
    _wav(folder / "audio.wav", scene.sound.samples)
    classes = "_".join(CLASSES[kind.index + 1] for kind in scene.sounding)
    return item.id, uid, "0", "0", classes, item.split, subset


@dataclass(frozen=True)
class _Layout:
    """The writer of one task's clips, and their table."""

    write: Callable[[Path, _Item], Row]
    table: str
    header: str
    kinds: int


_LAYOUTS = {
    "s4": _Layout(
        _write_s4, "Single-source/s4_meta_data.csv", "name,start,category,split", len(S4_CATEGORIES)
    ),
    "ms3": _Layout(_write_ms3, "Multi-sources/ms3_meta_data.csv", "video_id,split", len(S4_CATEGORIES)),
    "avss": _Layout(
        _write_avss, "AVSBench_semantic/metadata.csv", "vid,uid,s_min,s_sec,a_obj,split,label", len(KINDS)
    ),
}


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
    layout = _LAYOUTS[task.name]
    kinds = layout.kinds if kinds is None else kinds
    jobs = (os.cpu_count() or 1) if jobs is None else jobs
    _check(clips, seed, kinds, layout.kinds, jobs)
    out = out.expanduser().absolute()
    if out.exists() and not (out.is_dir() and next(out.iterdir(), None) is None):
        raise UsageError(f"{out} exists and is not an empty folder; pass a new one, or remove it first.")
    items = [
        _Item(split, index, seed, kinds)
        for split, count in zip(SPLITS, clips, strict=True)
        for index in range(count)
    ]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            root = Path(temporary) / out.name
            root.mkdir()
            rows = _write_clips(partial(layout.write, root), items, jobs, progress)
            _describe(root, task, layout, rows, clips, seed, kinds)
            if out.exists():
                out.rmdir()
            root.rename(out)
    except BrokenProcessPool as error:
        raise AvsbError(
            f"A worker process died while writing {out}. If memory ran out, use fewer jobs; a script of your"
            " own needs `if __name__ == '__main__':` around its call, or jobs=1."
        ) from error
    except OSError as error:
        raise AvsbError(f"Cannot write the synthetic benchmark to {out}: {error.strerror}.") from error


def _write_clips(
    write: Callable[[_Item], Row], items: list[_Item], jobs: int, progress: Progress | None
) -> list[Row]:
    rows: list[Row] = []
    with closing(_each(write, items, jobs)) as written:
        for row in written:
            rows.append(row)
            if progress is not None:
                progress(len(rows), len(items))
    return rows


def _check(clips: tuple[int, int, int], seed: int, kinds: int, most: int, jobs: int) -> None:
    if len(clips) != len(SPLITS) or min(clips) < 0 or sum(clips) == 0 or max(clips) > 999_999:
        raise UsageError(f"clips are three numbers, TRAIN,VAL,TEST, such as 40,10,10; got {clips}.")
    if not 0 <= seed < 2**64:
        raise UsageError(f"The seed must lie between 0 and 2**64 - 1; got {seed}.")
    if not 2 <= kinds <= most:
        raise UsageError(f"kinds must lie between 2 and {most} for this task; got {kinds}.")
    if jobs < 1:
        raise UsageError(f"jobs is a number of processes, at least 1; got {jobs}.")


def _each(write: Callable[[_Item], Row], items: list[_Item], jobs: int) -> Generator[Row, None, None]:
    """Yield the rows of all clips in order, written by up to ``jobs`` processes."""
    chunk = 4
    jobs = min(jobs, -(-len(items) // chunk))
    main = getattr(sys.modules["__main__"], "__file__", None)
    if jobs == 1 or (
        main and not Path(main).exists()
    ):  # workers import main, which cannot be done if it came from stdin
        yield from map(write, items)
        return
    # Spawned: forking a process with threads (torch, progress bars) can deadlock.
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        yield from pool.map(write, items, chunksize=chunk)
    finally:  # the workers have ended when the caller removes the folder they write to
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Ignore Ctrl-C, which the parent handles, and end with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End when the parent is killed; a pool's worker would wait for work forever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _describe(
    root: Path,
    task: Task,
    layout: _Layout,
    rows: list[Row],
    clips: tuple[int, int, int],
    seed: int,
    kinds: int,
) -> None:
    """Write the table of clips and the markers of synthetic data."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(layout.header.split(","))
    writer.writerows(rows)
    write_text(root / layout.table, text.getvalue())
    if task.semantic:
        numbers = {name: index for index, name in enumerate(CLASSES, start=1)}
        write_json(root / "AVSBench_semantic" / "label2idx.json", numbers)
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


def _binary(scene: Scene) -> Bytes:
    """(T,H,W) masks: 255 for sounding objects, else 0."""
    return (scene.classes() > 0).astype(np.uint8) * np.uint8(255)


def _png(path: Path, pixels: Bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)


def _jpeg(path: Path, pixels: Bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def _wav(path: Path, samples: NDArray[np.int16]) -> None:
    """Write (n,channels) samples as 16-bit wav."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())
