"""Reading a float tensor out of a pickle without unpickling.

AVSBench ships its log-mels as pickled torch tensors. A machine that runs nothing follows the pickle
(:mod:`avsbench_harness.data.pickle_machine`), and the four names that a pickled tensor needs are answered by
functions of this module. Every other name, opcode, size or stride is refused, so no file can do more than
describe numbers.

Understood are ``pickle.dump(tensor)`` of any protocol and ``torch.save(tensor)``, in the zip format and in
the one before it.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.data.pickle_machine import Global, Machine, RefusedError, Stream, encode_latin1
from avsbench_harness.errors import UsageError

#: Largest file that is looked at; AVSBench's log-mels take 0.13 to 0.25 MB.
MAX_BYTES = 16 * 2**20

_DTYPES = {"torch.FloatStorage": "<f4", "torch.DoubleStorage": "<f8", "torch.HalfStorage": "<f2"}
# What zipfile raises on damaged or hostile archives.
_ZIP_ERRORS = (
    zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, OverflowError, KeyError, struct.error,
    zlib.error,
)  # fmt: skip
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


@dataclass
class _Storage:
    """``count`` numbers; ``data`` is filled in when they follow later in the file."""

    dtype: np.dtype[Any]
    count: int
    data: bytes | None = None


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage, not yet checked against its bounds."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_float_tensor(path: Path, shape: tuple[int | None, ...], max_rows: int) -> NDArray[np.float32]:
    """The one tensor that a pickle or ``torch.save`` file holds, as float32.

    Args:
        path: the file.
        shape: the shape that it must have; ``None`` stands for 1 to ``max_rows``.
        max_rows: see ``shape``.

    Raises:
        UsageError: the file is missing, too large, or anything but a float tensor of that shape; the message
            names what it asks for.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise RefusedError(f"is larger than {MAX_BYTES >> 20} MB")
        value = _read_zip(content) if content.startswith(b"PK\x03\x04") else _read_stream(io.BytesIO(content))
        if not isinstance(value, _Tensor):
            raise RefusedError("holds something else than one tensor")
        return _array(value, shape, max_rows)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}).") from error
    except RefusedError as refusal:
        raise UsageError(
            f"{path} {refusal}; only a pickled float tensor is read. Use the recording instead."
        ) from None


# --- containers -------------------------------------------------------------------------------------------


def _read_stream(stream: io.BytesIO, nested: bool = False) -> Any:
    """The value of a plain pickle, or of the older ``torch.save`` format (first a magic number)."""
    storages: dict[str, _Storage] = {}
    pickle = _TensorPickle(storages, nested)
    value = pickle.read(stream)
    if type(value) is not int or value != _LEGACY_MAGIC:
        return value
    if pickle.read(stream) != _LEGACY_PROTOCOL:
        raise RefusedError("is of an unknown torch.save version")
    system = pickle.read(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise RefusedError("was saved on a big-endian machine")
    value = pickle.read(stream)
    keys = pickle.read(stream)
    if not isinstance(keys, list):
        raise RefusedError("lists no storages")
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        header = stream.read(8)
        if storage is None or len(header) != 8 or struct.unpack("<q", header)[0] != storage.count:
            raise RefusedError("declares a storage that does not fit its data")
        storage.data = stream.read(storage.count * storage.dtype.itemsize)
    return value


def _read_zip(content: bytes) -> Any:
    """The value of a ``torch.save`` file in the zip format."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename: info for info in archive.infolist()}
            program = [name for name in members if name.endswith("/data.pkl")]
            if len(program) != 1:
                raise RefusedError("is a zip file but not one of torch.save")
            folder = program[0].removesuffix("data.pkl")

            def member(name: str) -> bytes:
                info = members.get(folder + name)
                if info is None:
                    raise RefusedError(f"lacks its part '{name[:40]}'")
                # torch.save stores without compression, so a part is never larger than the file.
                if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(content):
                    raise RefusedError("has compressed parts")
                return archive.read(info)

            if folder + "byteorder" in members and member("byteorder") != b"little":
                raise RefusedError("was saved on a big-endian machine")
            storages: dict[str, _Storage] = {}
            value = _TensorPickle(storages).read(io.BytesIO(member("data.pkl")))
            for key, storage in storages.items():
                storage.data = member(f"data/{key}")
            return value
    except _ZIP_ERRORS as error:
        raise RefusedError(f"is a damaged zip file ({error})") from error


def _array(tensor: _Tensor, shape: tuple[int | None, ...], max_rows: int) -> NDArray[np.float32]:
    """The numbers of a tensor, once its shape and every element's place in the storage are checked."""
    wanted = tuple("n" if length is None else length for length in shape)
    fits = len(tensor.size) == len(shape) and all(
        1 <= length <= max_rows if expected is None else length == expected
        for length, expected in zip(tensor.size, shape, strict=True)
    )
    if not fits:
        found = f"{len(tensor.size)} axes" if len(tensor.size) > 8 else str(tensor.size)
        raise RefusedError(f"holds a tensor of shape {found} where {wanted} is expected")
    storage = tensor.storage
    if storage.data is None or len(storage.data) != storage.count * storage.dtype.itemsize:
        raise RefusedError("declares a storage that does not fit its data")
    last = tensor.offset + sum(
        (length - 1) * step for length, step in zip(tensor.size, tensor.stride, strict=True)
    )
    if last >= storage.count:
        raise RefusedError("holds a tensor that reaches beyond its storage")
    numbers = np.frombuffer(storage.data, storage.dtype)[tensor.offset :]
    steps = tuple(step * storage.dtype.itemsize for step in tensor.stride)
    return np.lib.stride_tricks.as_strided(numbers, tensor.size, steps).astype(np.float32)


# --- the pickle of a tensor ---------------------------------------------------------------------------------


class _TensorPickle:
    """Answers what the pickle of a tensor asks for.

    Args:
        storages: receives the storages that the pickle refers to, by key.
        nested: whether this pickle lies in another one's bytes, where a third level is refused.
    """

    def __init__(self, storages: dict[str, _Storage], nested: bool = False) -> None:
        self._storages = storages
        self._nested = nested
        self._functions: dict[str, Callable[..., Any]] = {
            "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
            "torch.storage._load_from_bytes": self._load_from_bytes,
            "_codecs.encode": encode_latin1,
            "collections.OrderedDict": dict,
        }

    def read(self, stream: Stream) -> Any:
        """The value of the pickle at which the stream stands."""
        return Machine(stream, self._functions, _DTYPES, self._persistent).run()

    def _persistent(self, reference: Any) -> _Storage:
        """The storage that ``('storage', type, key, device, count[, None])`` refers to."""
        match reference:
            case ("storage", Global(kind), str(key), str(_), int(count), *view) if (
                kind in _DTYPES and 0 <= count <= MAX_BYTES and view in ([], [None])
            ):
                storage = self._storages.setdefault(key, _Storage(np.dtype(_DTYPES[kind]), count))
                if storage.dtype != np.dtype(_DTYPES[kind]) or storage.count != count:
                    raise RefusedError("declares one storage twice, differently")
                return storage
        raise RefusedError("refers to something else than a storage of floats")

    def _load_from_bytes(self, content: Any) -> Any:
        """A storage saved by ``torch.save`` into the bytes of an outer pickle."""
        if self._nested:
            raise RefusedError("nests pickles")
        if not isinstance(content, bytes):
            raise RefusedError("loads a storage from something else than bytes")
        return _read_stream(io.BytesIO(content), nested=True)


def _rebuild_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, metadata: Any = None
) -> _Tensor:
    """A dense float tensor; autograd's flags and (empty) hooks mean nothing here."""
    numbers = [offset, *size, *stride] if isinstance(size, tuple) and isinstance(stride, tuple) else [None]
    if (
        not isinstance(storage, _Storage)
        or any(type(number) is not int or number < 0 for number in numbers)
        or len(size) != len(stride)
        or not isinstance(grad, bool)
        or hooks not in (None, {})
        or metadata not in (None, {})
    ):
        raise RefusedError("describes a tensor that is not a plain one")
    return _Tensor(storage, offset, size, stride)
