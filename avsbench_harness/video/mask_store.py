"""A video's masks on disk, so that an interrupted segmentation resumes at the next window."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import Image

from avsbench_harness.errors import Busy, UsageError
from avsbench_harness.files import atomic_write, read_json, write_json
from avsbench_harness.video.windows import Window


class MaskStore:
    """One PNG file of labels per prediction, in a folder that is valid for one key.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, index: int, labels: NDArray[np.uint8]) -> None:
        """Store the labels (H,W) of a prediction, whole or not at all."""
        with atomic_write(self._path(index)) as file:
            Image.fromarray(labels).save(file, "PNG", compress_level=1)

    def read(self, index: int) -> NDArray[np.uint8]:
        """The labels (H,W) of a prediction."""
        with Image.open(self._path(index)) as image:
            return np.asarray(image)

    def has(self, window: Window, fps: int) -> bool:
        """Whether all predictions of a window are stored."""
        return all(self._path(window.first + second * fps).is_file() for second in window.kept)

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:07d}.png"


@contextmanager
def open_store(folder: Path, key: dict[str, Any]) -> Iterator[MaskStore]:
    """Open a store for one process; masks that were stored under another key are removed.

    The folder is removed at the end, and kept after an error.

    Args:
        folder: the folder.
        key: everything that determines the masks, as JSON values.

    Raises:
        Busy: another process uses it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Busy(f"Another process works in {folder}; wait for it or stop it.") from None
    try:
        plan = folder / "plan.json"
        if _stored_key(plan) != key:
            for path in folder.glob("*.png"):
                path.unlink()
            write_json(plan, key)
        yield MaskStore(folder)
    finally:
        lock.release()
    shutil.rmtree(folder, ignore_errors=True)


def _stored_key(plan: Path) -> Any:
    try:
        return read_json(plan) if plan.is_file() else None
    except UsageError:
        return None
