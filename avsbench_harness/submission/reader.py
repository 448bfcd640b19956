"""Reading and validation of submissions; scoring and checking use the same code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from avsbench_harness.data.clip import CLIP_ID_RULE, is_clip_id
from avsbench_harness.errors import MissingDataError, SubmissionError
from avsbench_harness.submission.archive import Archive, ArraySpec, Member
from avsbench_harness.submission.codes import BINARY_REMEDY, looks_binary
from avsbench_harness.submission.header import Header, parse
from avsbench_harness.tasks import CLASSES, get_task

Bytes = npt.NDArray[np.uint8]
Self = TypeVar("Self", bound="ClipFile")

#: Maximum size of a header in bytes: a solution with 20,000 clips.
_MAX_HEADER = 4 * 2**20


class ClipFile(ABC):
    """An open npz file with a header and one uint8 array (T,H,W) per clip, read clip by clip.

    Opening checks everything that can be checked without decompressing the clips and lists the faults in
    :attr:`faults`. A file with faults must not be read further.

    Attributes:
        path: the file.
        shapes: (T,H,W) by clip id, in the order of the file.
        faults: faults of the file, one line each.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[str] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._clips: dict[str, tuple[Member, ArraySpec]] = {}
        try:
            self._archive = Archive(path)
        except SubmissionError as error:
            raise SubmissionError(f"{path}: {error}") from None
        try:
            self._open()
        except SubmissionError as error:
            self._archive.close()
            raise SubmissionError(f"{path}: {error}") from None
        except BaseException:
            self._archive.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.shapes)

    def __iter__(self) -> Iterator[tuple[str, Bytes]]:
        """Yield (id, array) of each clip in the order of the file, one in memory at a time."""
        for clip_id in self.shapes:
            yield clip_id, self.read(clip_id)

    def read(self, clip_id: str) -> Bytes:
        """Read one clip, (T,H,W) uint8, and verify checksum and values.

        Raises:
            SubmissionError: the clip is missing, damaged or has invalid values.
        """
        if clip_id not in self._clips:
            raise SubmissionError(
                f"{self.path}: clip '{clip_id}' is missing; predict it and write the file again."
            )
        member, spec = self._clips[clip_id]
        try:
            array = self._archive.read(member, spec.data).reshape(spec.shape)
            self._check_values(clip_id, array)
        except SubmissionError as error:
            raise SubmissionError(f"{self.path}: clip '{clip_id}': {error}") from None
        return array

    def raise_faults(self) -> None:
        """Raise a ``SubmissionError`` with the first fault and the number of further faults, if any."""
        if self.faults:
            more = len(self.faults) - 1
            rest = f" ({more} more; 'avsb submit check {self.path}' lists them)" if more else ""
            raise SubmissionError(f"{self.path}: {self.faults[0]}{rest}")

    def content_faults(self) -> list[str]:
        """Read all clips and return their faults, one line each."""
        found = []
        for clip_id in self.shapes:
            try:
                self.read(clip_id)
            except SubmissionError as error:
                found.append(str(error).removeprefix(f"{self.path}: "))
        return found

    @abstractmethod
    def _read_header(self, value: Any) -> tuple[str, tuple[int, int]]:
        """Validate and store a parsed header; return its task and (H, W)."""

    @abstractmethod
    def _check_values(self, clip_id: str, array: Bytes) -> None:
        """Raise a ``SubmissionError`` if a clip has invalid values."""

    def _open(self) -> None:
        members = self._members()
        header = members.pop("header", None)
        if header is None:
            raise SubmissionError("it has no header; add the array 'header' (see submissions/README.md).")
        try:
            data = self._header_bytes(header)
        except SubmissionError as error:
            raise SubmissionError(f"header: {error}") from None
        task, size = self._read_header(parse(data))
        frames = get_task(task).frames
        for clip_id, member in members.items():
            try:
                spec = self._archive.array_spec(member)
                _check_clip(member, spec, frames, size)
            except SubmissionError as error:
                self.faults.append(f"clip '{clip_id}': {error}")
                continue
            self._clips[clip_id] = member, spec
            self.shapes[clip_id] = spec.shape
        if not members:
            self.faults.append("it has no clips; add one uint8 array (T,H,W) per clip.")

    def _members(self) -> dict[str, Member]:
        """Return the members by array name; invalid and repeated names are added to the faults."""
        members: dict[str, Member] = {}
        for member in self._archive.members:
            name = member.name.removesuffix(".npy")
            if name == member.name or not (name == "header" or is_clip_id(name)):
                self.faults.append(f"member {member.name[:80]!r} is not a clip; ids have {CLIP_ID_RULE}.")
            elif name in members:
                self.faults.append(f"clip '{name}' occurs twice; write each clip once.")
            else:
                members[name] = member
        return members

    def _header_bytes(self, member: Member) -> bytes:
        spec = self._archive.array_spec(member)
        if spec.dtype != "|u1" or len(spec.shape) != 1 or member.size != spec.data + spec.shape[0]:
            raise SubmissionError(
                f"expected UTF-8 bytes as a uint8 vector, got {spec.dtype[:20]!r} of shape {spec.shape[:4]}."
            )
        if member.size > _MAX_HEADER:
            raise SubmissionError(f"{member.size} bytes exceed the limit of {_MAX_HEADER}; shorten it.")
        return self._archive.read(member, spec.data).tobytes()


def _check_clip(member: Member, spec: ArraySpec, frames: int, size: tuple[int, int]) -> None:
    """Check the declared array of a clip before it is decompressed."""
    if spec.dtype != "|u1":
        raise SubmissionError(
            f"dtype is {spec.dtype[:20]!r}, expected uint8; encode probabilities (see submissions/README.md)."
        )
    if len(spec.shape) != 3 or spec.shape[1:] != size or not 1 <= spec.shape[0] <= frames:
        raise SubmissionError(
            f"shape is {spec.shape[:5]}, expected (1 to {frames}, {size[0]}, {size[1]}); "
            "write (T,H,W) in the header's size."
        )
    if spec.fortran:
        raise SubmissionError("it is in Fortran order; convert it with numpy.ascontiguousarray.")
    if member.size != spec.data + int(np.prod(spec.shape)):
        raise SubmissionError(
            f"it declares {member.size} bytes for shape {spec.shape}; write the file again."
        )


def check_labels(array: Bytes) -> None:
    """Check that labels are class indices of AVSBench-semantic."""
    if array.max() >= len(CLASSES):
        raise SubmissionError(
            f"label {array.max()} exceeds {len(CLASSES) - 1}; map your classes to those of AVSBench-semantic."
        )


class Submission(ClipFile):
    """An open submission.

    Attributes:
        header: the header.
    """

    header: Header

    def _read_header(self, value: Any) -> tuple[str, tuple[int, int]]:
        self.header = Header.from_json(value)
        self._low_probability = frozenset(self.header.low_probability)
        return self.header.task, self.header.size

    def _check_values(self, clip_id: str, array: Bytes) -> None:
        if get_task(self.header.task).semantic:
            check_labels(array)
        elif looks_binary(array) and clip_id not in self._low_probability:
            raise SubmissionError(f"its codes are 0 and 1 alone, which score as empty; {BINARY_REMEDY}.")


def read_submission(path: Path) -> Submission:
    """Open a submission and check its declarations; use it as a context manager.

    The content of a clip is checked when it is read.

    Raises:
        MissingDataError: the file cannot be opened.
        SubmissionError: the file is not a valid submission; the message names the first fault.
    """
    submission = Submission(path)
    try:
        submission.raise_faults()
    except SubmissionError:
        submission.close()
        raise
    return submission


def check_submission(path: Path, solution: Any = None) -> list[str]:
    """All faults of a submission, one line each; empty if it can be scored.

    Args:
        path: the file.
        solution: a :class:`~avsbench_harness.submission.solution.Solution`, to also find missing and unknown
            clips, wrong numbers of frames and a wrong fingerprint.
    """
    try:
        with Submission(path) as submission:
            faults = submission.faults + submission.content_faults()
            return faults + (solution.mismatches(submission) if solution is not None else [])
    except MissingDataError:
        raise
    except SubmissionError as error:
        return [str(error).removeprefix(f"{path}: ")]
