"""Writes generated clips in the official layouts: files, tables, and a new folder as a whole."""

from __future__ import annotations

import csv
import io
import os
import signal
import sys
import tempfile
import threading
import wave
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbench_harness.data.masks import colourise
from avsbench_harness.errors import AvsbError, UsageError
from avsbench_harness.files import write_json, write_text
from avsbench_harness.tasks import CLASSES, Split, Task

Bytes = NDArray[np.uint8]
Row = tuple[str, ...]
Progress = Callable[[int, int], None]
Item = TypeVar("Item")

#: Sampling rate of recordings, Hz.
RATE = 16000


@dataclass(frozen=True)
class GeneratedClip:
    """One clip to write.

    Attributes:
        id: identifier; for AVSS the ``vid``.
        split: the split.
        frames: (T,224,224,3) RGB.
        labels: (T,224,224) class indices of sounding objects, 0 elsewhere; in S4 and MS3 every other value
            is foreground.
        samples: (n,channels) samples at :data:`RATE`.
        category: the S4 category.
        classes: names of the sounding classes (AVSS).
        subset: v1s, v1m or v2 (AVSS).
    """

    id: str
    split: Split
    frames: Bytes
    labels: Bytes
    samples: NDArray[np.int16]
    category: str = ""
    classes: tuple[str, ...] = ()
    subset: str = ""


def _write_s4(root: Path, clip: GeneratedClip) -> Row:
    place, data = Path(clip.split, clip.category), root / "Single-source" / "s4_data"
    masks = _binary(clip)
    for k, frame in enumerate(clip.frames, start=1):
        write_png(data / "visual_frames" / place / clip.id / f"{clip.id}_{k}.png", frame)
        if k == 1 or clip.split != "train":
            write_png(data / "gt_masks" / place / clip.id / f"{clip.id}_{k}.png", masks[k - 1])
    _write_wav(data / "audio_wav" / place / f"{clip.id}.wav", clip.samples)
    return clip.id, "0", clip.category, clip.split


def _write_ms3(root: Path, clip: GeneratedClip) -> Row:
    data, masks = root / "Multi-sources" / "ms3_data", _binary(clip)
    for k, frame in enumerate(clip.frames, start=1):
        write_png(data / "visual_frames" / clip.id / f"{clip.id}.mp4_{k}.png", frame)
        write_png(data / "gt_masks" / clip.split / clip.id / f"{clip.id}_{k}.png", masks[k - 1])
    _write_wav(data / "audio_wav" / clip.split / f"{clip.id}.wav", clip.samples)
    return clip.id, clip.split


def _write_avss(root: Path, clip: GeneratedClip) -> Row:
    uid = clip.id if clip.subset == "v1m" else f"{clip.id}_0_{1000 * len(clip.frames)}"
    folder = root / "AVSBench_semantic" / clip.subset / uid
    for k, (frame, labels) in enumerate(zip(clip.frames, clip.labels, strict=True)):
        _write_jpeg(folder / "frames" / f"{k}.jpg", frame)
        if k == 0 or (clip.subset, clip.split) != ("v1s", "train"):
            write_png(folder / "labels_semantic" / f"{k}.png", labels)
            write_png(folder / "labels_rgb" / f"{k}.png", colourise(labels))
    _write_wav(folder / "audio.wav", clip.samples)
    return clip.id, uid, "0", "0", "_".join(clip.classes), clip.split, clip.subset


@dataclass(frozen=True)
class _Layout:
    """The writer of one task's clips, and their table."""

    write: Callable[[Path, GeneratedClip], Row]
    table: str
    header: str


_LAYOUTS = {
    "s4": _Layout(_write_s4, "Single-source/s4_meta_data.csv", "name,start,category,split"),
    "ms3": _Layout(_write_ms3, "Multi-sources/ms3_meta_data.csv", "video_id,split"),
    "avss": _Layout(_write_avss, "AVSBench_semantic/metadata.csv", "vid,uid,s_min,s_sec,a_obj,split,label"),
}


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``out`` at the end, and is removed after an error.

    Args:
        out: the folder to make; it must not exist or be empty.

    Raises:
        UsageError: ``out`` is not empty.
        AvsbError: the disk is full or cannot be written, or a worker process died.
    """
    out = out.expanduser().absolute()
    if out.exists() and not (out.is_dir() and next(out.iterdir(), None) is None):
        raise UsageError(f"{out} exists and is not an empty folder; pass a new one, or remove it first.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            root = Path(temporary) / out.name
            root.mkdir()
            yield root
            if out.exists():
                out.rmdir()
            root.rename(out)
    except BrokenProcessPool as error:
        raise AvsbError(
            f"A worker process died while writing {out}. If memory ran out, use fewer jobs; a script of your"
            " own needs `if __name__ == '__main__':` around its call, or jobs=1."
        ) from error
    except OSError as error:
        raise AvsbError(f"Cannot write the clips to {out}: {error.strerror or error}.") from error


def write_clips(
    root: Path,
    task: Task,
    make: Callable[[Item], GeneratedClip],
    items: Sequence[Item],
    jobs: int,
    progress: Progress | None = None,
) -> None:
    """Make and write clips, and the task's table.

    Args:
        root: the data root.
        task: the task.
        make: makes a clip; it is called in worker processes and must be picklable.
        items: its arguments, one per clip, in the order of the table.
        jobs: number of processes.
        progress: called with (clips written, total clips).
    """
    layout, rows = _LAYOUTS[task.name], list[Row]()
    with closing(_each(partial(_make_and_write, make, root, task), items, jobs)) as written:
        for row in written:
            rows.append(row)
            if progress is not None:
                progress(len(rows), len(items))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(layout.header.split(","))
    writer.writerows(rows)
    write_text(root / layout.table, text.getvalue())
    if task.semantic:
        numbers = {name: index for index, name in enumerate(CLASSES, start=1)}
        write_json(root / "AVSBench_semantic" / "label2idx.json", numbers)


def _make_and_write(make: Callable[[Item], GeneratedClip], root: Path, task: Task, item: Item) -> Row:
    return _LAYOUTS[task.name].write(root, make(item))


def _each(write: Callable[[Item], Row], items: Sequence[Item], jobs: int) -> Generator[Row, None, None]:
    """Yield the rows of all clips in order, written by up to ``jobs`` processes."""
    chunk = 4
    jobs = min(jobs, -(-len(items) // chunk))
    main = getattr(sys.modules["__main__"], "__file__", None)
    if jobs <= 1 or (
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


def _binary(clip: GeneratedClip) -> Bytes:
    """(T,H,W) masks: 255 for sounding objects, else 0."""
    return (clip.labels > 0).astype(np.uint8) * np.uint8(255)


def write_png(path: Path, pixels: Bytes) -> None:
    """Write (H,W) grey or (H,W,3) RGB pixels, and the folders of the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)


def _write_jpeg(path: Path, pixels: Bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def _write_wav(path: Path, samples: NDArray[np.int16]) -> None:
    """Write (n,channels) samples as 16-bit wav."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())
