"""Safe reading of byte arrays from untrusted zip files (``.npz``).

All declarations of the zip and of each ``.npy`` header are checked before a member is decompressed,
decompression stops at the declared size, and nothing is unpickled. ``numpy.load`` is not used because it
trusts shapes, ``zipfile`` because it decompresses beyond the declared size; both silently use the last of
several members with the same name.
"""

from __future__ import annotations

import ast
import struct
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from avsbench_harness.errors import MissingDataError, SubmissionError

#: Maximum number of members; the largest split, AVSS train, has 8,498 clips.
MAX_MEMBERS = 20_000
_MAX_DIRECTORY = MAX_MEMBERS * 400
_MAX_ARRAY_HEADER = 1024

_UTF8 = 1 << 11  # flag of a member whose name is UTF-8

_END = struct.Struct("<4s4H2LH")  # end of central directory
_ENTRY = struct.Struct("<4s6H3L5H2L")  # central directory entry
_LOCAL = struct.Struct("<4s5H3L2H")  # local file header


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of the zip's central directory; sizes in bytes."""

    name: str
    deflated: bool
    packed: int
    size: int
    crc: int
    offset: int


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """Content of a ``.npy`` header, and the offset of the array's data."""

    dtype: str
    shape: tuple[int, ...]
    fortran: bool
    data: int


class Archive:
    """A zip file opened for reading; thread-safe.

    Args:
        path: the file.

    Raises:
        MissingDataError: the file cannot be opened.
        SubmissionError: the file is not a complete zip of at most ``MAX_MEMBERS`` stored or deflated members.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise MissingDataError(f"Cannot read {path}: {error.strerror}.") from error
        self._lock = threading.Lock()
        try:
            self.members = self._directory()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def array_spec(self, member: Member) -> ArraySpec:
        """Read the declared dtype and shape of an array; decompresses the first kilobyte only."""
        limit = 10 + _MAX_ARRAY_HEADER
        return _parse_array_header(self._inflate(member, min(member.size, limit), partial=True))

    def read(self, member: Member, data: int) -> npt.NDArray[np.uint8]:
        """Read the bytes of a member after its ``.npy`` header and verify the checksum.

        Args:
            member: the member; its declared size must have been checked.
            data: offset of the data in the member (``ArraySpec.data``).

        Returns:
            (n,) writable array.

        Raises:
            SubmissionError: the member is damaged.
        """
        content = self._inflate(member, member.size, partial=False)
        if zlib.crc32(content) != member.crc:
            raise SubmissionError("its checksum is wrong: the file is damaged; write or copy it again.")
        return np.frombuffer(bytearray(content), np.uint8, offset=data)

    def _inflate(self, member: Member, size: int, partial: bool) -> bytes:
        """Decompress the first ``size`` bytes of a member; unless ``partial``, the member must end there."""
        packed = self._packed(member, min(member.packed, 2 * size + 64) if partial else member.packed)
        if not member.deflated:
            if member.packed != member.size:
                raise SubmissionError("its stored size contradicts the declared one; write the file again.")
            return packed[:size]
        inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        try:
            # One extra byte detects a longer stream without decompressing it.
            content = inflater.decompress(packed, size if partial else size + 1)
        except zlib.error:
            raise SubmissionError(
                "it cannot be decompressed: the file is damaged; write or copy it again."
            ) from None
        if len(content) < size or (not partial and (len(content) > size or not inflater.eof)):
            raise SubmissionError(
                f"it does not decompress to the declared {member.size} bytes; write the file again."
            )
        return content

    def _packed(self, member: Member, count: int) -> bytes:
        """The first ``count`` compressed bytes of a member."""
        local = self._pread(member.offset, _LOCAL.size)
        fields = _LOCAL.unpack(local) if len(local) == _LOCAL.size else (b"",)
        if fields[0] != b"PK\x03\x04":
            raise SubmissionError(
                "its offset in the zip is wrong: the file is damaged; write or copy it again."
            )
        packed = self._pread(member.offset + _LOCAL.size + fields[-2] + fields[-1], count)
        if len(packed) != count:
            raise SubmissionError("the zip ends within it: the file is damaged; write or copy it again.")
        return packed

    def _pread(self, offset: int, count: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            return self._file.read(count)

    def _directory(self) -> list[Member]:
        length = self._file.seek(0, 2)
        tail_start = max(0, length - _END.size - 0xFFFF)
        tail = self._pread(tail_start, length - tail_start)
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) - at < _END.size:
            raise SubmissionError(
                "not a complete zip (no directory at its end); write or copy the file again."
            )
        _, disk, first_disk, here, count, size, offset, comment = _END.unpack_from(tail, at)
        if disk or first_disk or here != count or at + _END.size + comment != len(tail):
            raise SubmissionError("the zip's end record is damaged; write or copy the file again.")
        if count > MAX_MEMBERS or size > _MAX_DIRECTORY:
            raise SubmissionError(
                f"the zip lists {count} members in {size} bytes; a split has at most {MAX_MEMBERS} clips."
            )
        if offset + size != tail_start + at:
            raise SubmissionError("the zip's directory is not at the declared offset; write the file again.")
        return _parse_directory(self._pread(offset, size), count)


def _parse_directory(directory: bytes, count: int) -> list[Member]:
    """The members of a central directory, in its order; names need not be unique."""
    members = []
    at = 0
    for _ in range(count):
        if at + _ENTRY.size > len(directory):
            raise SubmissionError("the zip's directory is truncated; write or copy the file again.")
        signature, _, _, flags, method, _, _, crc, packed, size, name_length, extra, comment, *_, offset = (
            _ENTRY.unpack_from(directory, at)
        )
        at += _ENTRY.size
        raw = directory[at : at + name_length]
        at += name_length + extra + comment
        if signature != b"PK\x01\x02" or len(raw) != name_length:
            raise SubmissionError("the zip's directory is damaged; write or copy the file again.")
        name = raw.decode("utf-8" if flags & _UTF8 else "ascii", errors="backslashreplace")
        if flags & 1:
            raise SubmissionError(f"member {name[:80]!r} is encrypted; write it without a password.")
        if method not in (0, 8):
            raise SubmissionError(
                f"member {name[:80]!r} has compression method {method}; use stored or deflate."
            )
        members.append(Member(name, method == 8, packed, size, crc, offset))
    if at != len(directory):
        raise SubmissionError(
            "the zip's directory has more members than declared; write or copy the file again."
        )
    return members


def _parse_array_header(content: bytes) -> ArraySpec:
    """Parse dtype, shape and order from the first bytes of a ``.npy`` file, with literals only."""
    if content[:6] != b"\x93NUMPY" or content[6:8] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise SubmissionError("it is not a .npy array; save it with numpy.savez_compressed.")
    start = 10 if content[6] == 1 else 12
    length = int.from_bytes(content[8:start], "little")
    text = content[start : start + length]
    if length > _MAX_ARRAY_HEADER or len(text) < length:
        raise SubmissionError("its .npy header is too long; save it with numpy.savez_compressed.")
    try:
        value = ast.literal_eval(text.decode("ascii").strip())
        dtype, fortran, shape = value["descr"], value["fortran_order"], value["shape"]
        valid = (
            len(value) == 3
            and isinstance(fortran, bool)
            and isinstance(shape, tuple)
            and all(type(side) is int and side >= 0 for side in shape)
        )
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        valid = False
    if not valid:
        raise SubmissionError("its .npy header is malformed; save it with numpy.savez_compressed.")
    return ArraySpec(dtype if isinstance(dtype, str) else "structured", shape, fortran, start + length)
