"""Files of pickled arrays and tensors: plain pickles and the three formats of ``torch.save``."""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.errors import UsageError
from avsbench_harness.safe_pickle import values
from avsbench_harness.safe_pickle.unpickler import (
    Budget,
    Constructors,
    Global,
    RefusedError,
    Stream,
    unpickle,
)
from avsbench_harness.safe_pickle.values import Storage, StoredTensor

#: Largest file of one tensor that is read; AVSBench's log-mels take 0.13 to 0.25 MB.
MAX_TENSOR_FILE = 16 * 2**20
#: Most members of a zip file, each of which takes half a kilobyte of memory.
MAX_MEMBERS = 50_000

#: Most members of a tar file; torch.save writes four, each with one of attributes.
MAX_TAR_MEMBERS = 16

#: Types of storages: torch's name of the numbers, and their size in bytes.
_FLOATS = {"FloatStorage": ("float32", 4), "DoubleStorage": ("float64", 8), "HalfStorage": ("float16", 2)}
_STORAGES = {
    **_FLOATS, "BFloat16Storage": ("bfloat16", 2), "LongStorage": ("int64", 8), "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2), "CharStorage": ("int8", 1), "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
}  # fmt: skip

#: Of torch objects and numpy arrays, beyond what one tensor needs.
_ARRAY_CONSTRUCTORS: Constructors = {
    "__builtin__.bytes": values.no_bytes,
    "builtins.bytes": values.no_bytes,
    "collections.Counter": values.ordered_dict,
    "numpy.dtype": values.DataType,
    "numpy.ndarray": None,
    "torch.Size": values.torch_size,
    "torch._utils._rebuild_parameter": values.rebuild_parameter,
    "torch._utils._rebuild_tensor": values.rebuild_old_tensor,
    "torch.nn.parameter.Parameter": values.old_parameter,
    **dict.fromkeys(("builtins.complex", "builtins.set", "__builtin__.set", "torch.device"), values.ignored),
    **{f"torch.{dtype}": None for dtype, _ in _STORAGES.values()},
    **{f"torch.{name.removesuffix('Storage')}Tensor": None for name in _STORAGES},
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")  # numpy 1 and 2
        for name, function in (
            ("multiarray._reconstruct", values.reconstruct_array),
            ("multiarray.scalar", values.array_scalar),
            ("numeric._frombuffer", values.array_from_buffer),
        )
    },
}

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
# Exceptions of zipfile on damaged or hostile archives.
_ZIP_ERRORS = (
    zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, OverflowError, KeyError, struct.error,
    zlib.error,
)  # fmt: skip


def read_values(path: Path) -> Any:
    """Return the value in a pickle or ``torch.save`` file; nothing in it is executed.

    Memory stays within a small multiple of the file's size. Arrays are :class:`.values.PickledArray`, tensors
    :class:`.values.StoredTensor`; they are checked against their data when they are converted.

    Raises:
        RefusedError: the file is damaged, or holds anything beyond plain values, arrays and tensors.
        OSError: the file cannot be read.
    """
    return _Reader(path, _STORAGES, arrays=True).read()


def read_float_tensor(path: Path, shape: tuple[int | None, ...], max_rows: int) -> NDArray[np.float32]:
    """Return the one tensor in a pickle or ``torch.save`` file, as float32.

    Args:
        path: the file.
        shape: the required shape; ``None`` stands for 1 to ``max_rows``.
        max_rows: see ``shape``.

    Raises:
        UsageError: the file is missing, too large, or anything but a float tensor of that shape.
    """
    try:
        if path.stat().st_size > MAX_TENSOR_FILE:
            raise RefusedError(f"is larger than {MAX_TENSOR_FILE >> 20} MB")
        value = _Reader(path, _FLOATS, arrays=False).read()
        if not isinstance(value, StoredTensor):
            raise RefusedError("holds something else than one tensor")
        _check_shape(value.size, shape, max_rows)
        return value.to_numpy().astype(np.float32)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}).") from error
    except RefusedError as refusal:
        raise UsageError(
            f"{path} {refusal}; only a pickled float tensor is read. Use the recording instead."
        ) from None


def _check_shape(size: tuple[int, ...], shape: tuple[int | None, ...], max_rows: int) -> None:
    fits = len(size) == len(shape) and all(
        1 <= length <= max_rows if expected is None else length == expected
        for length, expected in zip(size, shape, strict=True)
    )
    if not fits:
        wanted = tuple("n" if length is None else length for length in shape)
        raise RefusedError(f"holds a tensor of shape {size} where {wanted} is expected")


def _check_members(content: mmap.mmap) -> None:
    """Refuse a zip file with so many members that their list alone takes much memory."""
    place = -1
    for _ in range(MAX_MEMBERS):
        place = content.find(b"PK\x01\x02", place + 1)
        if place < 0:
            return
    raise RefusedError("is a zip file of too many parts")


def _tar_members(content: mmap.mmap) -> dict[str, int]:
    """The places of the files among the first :data:`MAX_TAR_MEMBERS` members of a tar archive, by name."""
    found: dict[str, int] = {}
    place = 0
    for _ in range(MAX_TAR_MEMBERS):
        header = content[place : place + 512]
        if len(header) < 512 or not header.strip(b"\0"):
            break
        digits = header[124:136].strip(b"\0 ")
        if not digits.isdigit() or b"8" in digits or b"9" in digits:
            raise RefusedError("is a damaged tar archive")
        place += 512
        if header[156:157] in b"0\0":
            found[header[:100].rstrip(b"\0").decode("latin1")] = place
        place += -(-int(digits, 8) // 512) * 512
    return found


class _Reader:
    """Reads one file.

    Args:
        path: the file.
        storages: types of storages that are allowed, by torch's class.
        arrays: allow numpy arrays and whole state dicts, not only one tensor.
    """

    def __init__(self, path: Path, storages: dict[str, tuple[str, int]], *, arrays: bool) -> None:
        self._path = path
        self._size = path.stat().st_size
        self._budget = Budget(self._size)
        self._types = {f"torch.{name}": kind for name, kind in storages.items()}
        self._arrays = arrays
        self._constructors: Constructors = {
            "torch._utils._rebuild_tensor_v2": values.rebuild_tensor,
            "torch.storage._load_from_bytes": self._load_from_bytes,
            "_codecs.encode": self._encode,
            "collections.OrderedDict": self._ordered_dict,
            **(_ARRAY_CONSTRUCTORS if arrays else {}),
            **dict.fromkeys(self._types),
        }
        self._storages: dict[str, Storage] = {}
        self._nested = False

    def read(self) -> Any:
        """Return the file's value."""
        if not self._size:
            raise RefusedError("is empty")
        with self._path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if self._arrays and content[257:262] == b"ustar":
                return self._read_tar(content)
            if content[:4] != b"PK\x03\x04":
                return self._read_stream(content)
            _check_members(content)
        return self._read_zip()

    def _unpickle(self, stream: Stream, persistent: Callable[[Any], Any] | None = None) -> Any:
        found = persistent or self._storage
        return unpickle(stream, self._constructors, self._budget, found, arrays=self._arrays)

    def _read_stream(self, stream: Stream) -> Any:
        """Return the value of a plain pickle, or of ``torch.save``'s older format (a magic number first)."""
        value = self._unpickle(stream)
        if type(value) is not int or value != _LEGACY_MAGIC:
            return value
        if self._unpickle(stream) != _LEGACY_PROTOCOL:
            raise RefusedError("is of an unknown torch.save version")
        system = self._unpickle(stream)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise RefusedError("was saved on a big-endian machine")
        value = self._unpickle(stream)
        keys = self._unpickle(stream)
        if not isinstance(keys, list):
            raise RefusedError("lists no storages")
        for key in keys:
            storage = self._storages.get(key) if isinstance(key, str) else None
            header = stream.read(8)
            if storage is None or len(header) != 8 or struct.unpack("<q", header)[0] != storage.count:
                raise RefusedError("declares a storage that does not fit its data")
            storage.data = bytearray(stream.read(storage.count * storage.itemsize))
        return value

    def _read_tar(self, content: mmap.mmap) -> Any:
        """Return the value of a file in torch.save's first format, of PyTorch before 0.1.10 (2017)."""
        places = _tar_members(content)
        if not {"storages", "tensors", "pickle"} <= places.keys():
            raise RefusedError("is a tar archive but not one of torch.save")
        try:
            storages = self._tar_storages(content, places["storages"])
            tensors = self._tar_tensors(content, places["tensors"], storages)
        except struct.error as error:
            raise RefusedError("is a damaged tar archive (a part is cut short)") from error

        def find(reference: Any) -> StoredTensor:
            number = reference if type(reference) in (int, str) and len(str(reference)) < 30 else None
            if str(number) not in tensors:
                raise RefusedError("refers to something else than a tensor of the file")
            return tensors[str(number)]

        content.seek(places["pickle"])
        value = self._unpickle(content, find)
        if not isinstance(value, dict):
            return value
        return {
            name: entry.tensor if isinstance(entry, values.OldParameter) else entry
            for name, entry in value.items()
        }

    def _tar_storages(self, content: mmap.mmap, place: int) -> dict[int, Storage]:
        """The storages of a tar file by number: a pickle of number, device and type, a count, the data."""
        content.seek(place)
        found: dict[int, Storage] = {}
        for _ in range(self._tar_count(content)):
            match self._unpickle(content):
                case (int(key), str(_), Global(name=kind)) if kind in self._types:
                    dtype, itemsize = self._types[kind]
                case _:
                    raise RefusedError("refers to something else than a storage of numbers")
            (count,) = struct.unpack("<q", content.read(8))
            if not 0 <= count <= self._size:
                raise RefusedError("declares a storage that does not fit its data")
            data = bytearray(content.read(count * itemsize))
            found[key] = Storage(dtype, itemsize, count, data)
        if self._unpickle(content) != []:
            raise RefusedError("has storages that are views of others")
        return found

    def _tar_tensors(
        self, content: mmap.mmap, place: int, storages: dict[int, Storage]
    ) -> dict[str, StoredTensor]:
        """The tensors of a tar file by number, as text: a pickle of number, storage and type, the layout."""
        content.seek(place)
        found = {}
        for _ in range(self._tar_count(content)):
            match self._unpickle(content):
                case (int(key), int(storage), Global()) if storage in storages and 0 <= key < 2**64:
                    axes = min(max(struct.unpack("<i4x", content.read(8))[0], 0), values.MAX_AXES + 1)
                case _:
                    raise RefusedError("refers to something else than a storage of numbers")
            size, stride = (struct.unpack(f"<{axes}q", content.read(8 * axes)) for _ in range(2))
            (offset,) = struct.unpack("<q", content.read(8))
            found[str(key)] = values.rebuild_old_tensor(storages[storage], offset, size, stride)
        return found

    def _tar_count(self, content: mmap.mmap) -> int:
        count = self._unpickle(content)
        if type(count) is not int:
            raise RefusedError("is a tar archive but not one of torch.save")
        return count

    def _read_zip(self) -> Any:
        """Return the value of a ``torch.save`` file in the zip format."""
        try:
            with zipfile.ZipFile(self._path) as archive:
                members = {info.filename: info for info in archive.infolist()}
                programs = [name for name in members if name.endswith("/data.pkl")]
                if len(programs) != 1:
                    raise RefusedError("is a zip file but not one of torch.save")
                folder = programs[0].removesuffix("data.pkl")
                order = members.get(f"{folder}byteorder")
                if order is not None and self._member(archive, order) != b"little":
                    raise RefusedError("was saved on a big-endian machine")
                program = self._member(archive, members[programs[0]])
                value = self._unpickle(io.BytesIO(program))
                for key, storage in self._storages.items():
                    if f"{folder}data/{key}" not in members:
                        raise RefusedError(f"lacks its part {f'data/{key[:40]}'!r}")
                    storage.data = self._member(archive, members[f"{folder}data/{key}"])
                return value
        except _ZIP_ERRORS as error:
            raise RefusedError(f"is a damaged zip file ({str(error)[:80]})") from error

    def _member(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytearray:
        """Return a part, all of which together (they may overlap) are limited by the file's size."""
        # torch.save stores without compression, so a part is never larger than the file.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > self._size:
            raise RefusedError("has compressed parts, or parts that are larger than the file")
        self._budget.spend(info.file_size)
        data = bytearray(info.file_size)
        with archive.open(info) as part, memoryview(data) as view:
            place = 0
            while place < len(view) and (chunk := part.read(2**20)):
                view[place : place + len(chunk)] = chunk
                place += len(chunk)
            if place != len(view) or part.read(1):
                raise RefusedError("is a damaged zip file (a part is cut short)")
        return data

    # --- constructors that need the state of the file -----------------------------------------------------

    def _storage(self, reference: Any) -> Storage:
        """The storage that ``('storage', type, key, device, count[, None])`` refers to."""
        match reference:
            case ("storage", Global(name=kind), str(key), str(_), int(count)) | (
                "storage", Global(name=kind), str(key), str(_), int(count), None,
            ) if kind in self._types and 0 <= count <= self._size:  # fmt: skip
                dtype, itemsize = self._types[kind]
                storage = self._storages.setdefault(key, Storage(dtype, itemsize, count))
                if (storage.dtype, storage.count) != (dtype, count):
                    raise RefusedError("declares one storage twice, differently")
                return storage
        raise RefusedError("refers to something else than a storage of numbers")

    def _load_from_bytes(self, content: Any) -> Any:
        """``torch.storage._load_from_bytes``: a storage saved by ``torch.save`` inside of a pickle."""
        if self._nested:
            raise RefusedError("nests pickles")
        if not isinstance(content, bytes):
            raise RefusedError("loads a storage from something else than bytes")
        self._budget.spend(len(content))
        outer, self._storages, self._nested = self._storages, {}, True
        try:
            return self._read_stream(io.BytesIO(content))
        finally:
            self._storages, self._nested = outer, False

    def _encode(self, text: Any, encoding: Any) -> bytes:
        """``_codecs.encode``, which a pickle may call again and again on the same text."""
        self._budget.spend(len(text) if isinstance(text, str) else 0)
        return values.encode_latin1(text, encoding)

    def _ordered_dict(self, items: Any = ()) -> dict[Any, Any]:
        """``collections.OrderedDict``, which a pickle may make again and again of the same list."""
        self._budget.spend(len(items) * 64 if isinstance(items, list | tuple) else 0)
        return values.ordered_dict(items)
