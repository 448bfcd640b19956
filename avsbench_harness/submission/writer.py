"""Writing clips into an npz as a stream: memory holds one clip, and the file appears whole or not at all."""

from __future__ import annotations

import io
import json
import zipfile
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

import numpy as np
import numpy.typing as npt

from avsbench_harness.errors import SubmissionError
from avsbench_harness.files import atomic_write
from avsbench_harness.submission.codes import encode
from avsbench_harness.submission.header import Header, check_clip_id
from avsbench_harness.submission.reader import Bytes
from avsbench_harness.tasks import CLASSES, Task, get_task

Self = TypeVar("Self", bound="ClipWriter")

# Level 3 writes and reads smooth masks as fast as level 1 and packs them better; level 6 takes twice as long.
_DEFLATE_LEVEL = 3


class ClipWriter(ABC):
    """A context manager that packs uint8 arrays into an npz; equal content gives equal bytes.

    The file appears under its name when the block ends; if the block fails or is interrupted it does not.
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
                    raise SubmissionError(f"{self.path}: no clips were added; nothing is written.")
                header = json.dumps(self._header(), allow_nan=False).encode()
                self._write("header", np.frombuffer(header, np.uint8))
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._stack.__exit__(kind, error, trace)

    @abstractmethod
    def _header(self) -> dict[str, Any]:
        """The header to write when all clips are in."""

    def _add(self, clip_id: str, array: Bytes) -> None:
        """Check what all files of clips have in common, and write."""
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
        entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980, so that equal content gives equal bytes
        entry.external_attr = 0o644 << 16
        self._zip.writestr(entry, data.getbuffer(), zipfile.ZIP_DEFLATED, _DEFLATE_LEVEL)


def as_labels(clip_id: str, array: npt.ArrayLike, classes: int) -> Bytes:
    """Integers below ``classes`` as uint8; anything else is a ``SubmissionError`` that names the clip."""
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
    """Writes a submission as a stream.

    with SubmissionWriter(path, header) as writer:
        writer.add(clip_id, probabilities)  # s4, ms3: (T,H,W) floating point in [0,1], or uint8 codes
        writer.add(clip_id, labels)  # avss: (T,H,W) integers 0..70
    """

    def __init__(self, path: Path, header: Header) -> None:
        super().__init__(path, get_task(header.task), header.size)
        self.header = header
        Header.from_json(
            json.loads(json.dumps(header.to_json()))
        )  # what the reader will refuse is not written

    def add(self, clip_id: str, array: npt.ArrayLike) -> None:
        """Append one clip, (T,H,W) over its real frames.

        Raises:
            SubmissionError: NaN or values out of range, a wrong shape or dtype, a clip added twice or an
                impossible id; the file is then not written.
        """
        self._add(clip_id, self._bytes(clip_id, array))

    def _header(self) -> dict[str, Any]:
        return self.header.to_json()

    def _bytes(self, clip_id: str, array: npt.ArrayLike) -> Bytes:
        if self.task.semantic:
            return as_labels(clip_id, array, len(CLASSES))
        values = np.asarray(array)
        if values.dtype == np.uint8:
            return values
        try:
            return encode(values)
        except ValueError as error:
            raise SubmissionError(f"clip '{clip_id}': {error}.") from None
