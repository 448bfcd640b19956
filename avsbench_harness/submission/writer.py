"""Writing of submissions clip by clip, with one clip in memory and an atomic rename at the end."""

from __future__ import annotations

import io
import json
import zipfile
from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

import numpy as np
import numpy.typing as npt

from avsbench_harness.errors import SubmissionError
from avsbench_harness.files import atomic_write
from avsbench_harness.submission.codes import BINARY_REMEDY, encode, looks_binary
from avsbench_harness.submission.header import Header, check_clip_id
from avsbench_harness.submission.reader import Bytes
from avsbench_harness.tasks import CLASSES, Task, get_task

Self = TypeVar("Self", bound="ClipWriter")

# For smooth masks, level 3 is as fast as level 1 and compresses better; level 6 takes twice as long.
_DEFLATE_LEVEL = 3


class ClipWriter(ABC):
    """A context manager that writes uint8 arrays to an npz file; equal content gives equal bytes.

    The file is created when the block ends, and not if the block fails or is interrupted.
    """

    def __init__(self, path: Path, task: Task, size: tuple[int, int]) -> None:
        self.path = path
        self.task = task
        self.size = size
        self._names: set[str] = set()
        self._stack = ExitStack()
        self._zip: zipfile.ZipFile | None = None

    def __enter__(self: Self) -> Self:
        file: IO[bytes] = self._stack.enter_context(atomic_write(self.path))
        self._zip = self._stack.enter_context(zipfile.ZipFile(file, "w"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if not self._names:
                    raise SubmissionError(f"{self.path}: no clips were added; the file is not written.")
                header = json.dumps(self._header(), allow_nan=False).encode()
                self._write("header", np.frombuffer(header, np.uint8))
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._stack.__exit__(kind, error, trace)

    @abstractmethod
    def _header(self) -> dict[str, Any]:
        """The header, after all clips were added."""

    def _add(self, clip_id: str, array: Bytes) -> None:
        """Check id and shape of a clip and write it."""
        check_clip_id(clip_id)
        if clip_id in self._names:
            raise SubmissionError(f"clip '{clip_id}' was added twice; add each clip once.")
        frames = self.task.frames
        if array.ndim != 3 or array.shape[1:] != self.size or not 1 <= array.shape[0] <= frames:
            raise SubmissionError(
                f"clip '{clip_id}': shape is {array.shape}, "
                f"expected (1 to {frames}, {self.size[0]}, {self.size[1]})."
            )
        self._write(clip_id, array)
        self._names.add(clip_id)

    def _write(self, name: str, array: Bytes) -> None:
        if self._zip is None:
            raise RuntimeError("use the writer as a context manager: with ... as writer: writer.add(...)")
        data = io.BytesIO()
        np.lib.format.write_array(data, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
        entry = zipfile.ZipInfo(f"{name}.npy")  # fixed date, so that equal content gives equal bytes
        entry.external_attr = 0o644 << 16
        self._zip.writestr(entry, data.getbuffer(), zipfile.ZIP_DEFLATED, _DEFLATE_LEVEL)


def as_labels(clip_id: str, array: npt.ArrayLike, classes: int) -> Bytes:
    """Convert integer labels below ``classes`` to uint8.

    Raises:
        SubmissionError: other values or dtypes; the message names the clip.
    """
    values = np.asarray(array)
    if values.dtype.kind not in "iub":
        raise SubmissionError(
            f"clip '{clip_id}': expected integer labels, got {values.dtype}; take the argmax first."
        )
    if values.size and not (values.min() >= 0 and values.max() < classes):
        raise SubmissionError(
            f"clip '{clip_id}': labels must lie in 0 to {classes - 1}, got {values.min()} to {values.max()}."
        )
    return values.astype(np.uint8)


class SubmissionWriter(ClipWriter):
    """Write a submission clip by clip.

    with SubmissionWriter(path, header) as writer:
        writer.add(clip_id, probabilities)  # s4, ms3: (T,H,W) floating point in [0,1], or uint8 codes
        writer.add(clip_id, labels)  # avss: (T,H,W) integers in 0..70
    """

    def __init__(self, path: Path, header: Header) -> None:
        super().__init__(path, get_task(header.task), header.size)
        self.header = header
        self._low_probability: list[str] = []
        # Refuse a header that the reader would refuse.
        Header.from_json(json.loads(json.dumps(header.to_json())))

    def add(self, clip_id: str, array: npt.ArrayLike, *, encoded: bool = False) -> None:
        """Append one clip, (T,H,W) without padded frames.

        Args:
            clip_id: id of the clip.
            array: probabilities, codes or labels.
            encoded: whether codes were computed by :func:`encode`, so that 0 and 1 alone are no mask.

        Raises:
            SubmissionError: NaN or values out of range, a binary mask of uint8, wrong shape or dtype, or a
                repeated or invalid id; the file is then not written.
        """
        codes = self._bytes(clip_id, array, encoded)
        self._add(clip_id, codes)
        if not self.task.semantic and looks_binary(codes):
            self._low_probability.append(clip_id)

    def _header(self) -> dict[str, Any]:
        return replace(self.header, low_probability=tuple(self._low_probability)).to_json()

    def _bytes(self, clip_id: str, array: npt.ArrayLike, encoded: bool) -> Bytes:
        if self.task.semantic:
            return as_labels(clip_id, array, len(CLASSES))
        values = np.asarray(array)
        if values.dtype == np.uint8:
            if not encoded and looks_binary(values) and clip_id not in self.header.low_probability:
                raise SubmissionError(f"clip '{clip_id}': the codes are 0 and 1 alone; {BINARY_REMEDY}.")
            return values
        try:
            return encode(values)
        except ValueError as error:
            raise SubmissionError(f"clip '{clip_id}': {error}.") from None
