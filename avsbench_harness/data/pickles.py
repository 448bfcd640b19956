"""Reading a float tensor out of a pickle without unpickling.

AVSBench ships its log-mels as pickled torch tensors, and a pickle is a program that may call anything. Here
its opcodes are only read: a small stack machine follows them, a global is a mere name on the stack, and the
four names that a pickled tensor needs are answered by functions of this module. Every other name, opcode,
size or stride is refused, so no file can do more than describe numbers.

Understood are ``pickle.dump(tensor)`` of any protocol and ``torch.save(tensor)``, in the zip format and in
the one before it.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


class _RefusedError(Exception):
    """What is wrong with the pickle, as the end of the sentence "<file> ..."."""


@dataclass(frozen=True)
class _Global:
    """A name that the pickle asks for; nothing is ever looked up by it."""

    name: str


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


_MARK = object()


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
            raise _RefusedError(f"is larger than {MAX_BYTES >> 20} MB")
        value = _read_zip(content) if content.startswith(b"PK\x03\x04") else _read_stream(io.BytesIO(content))
        if not isinstance(value, _Tensor):
            raise _RefusedError("holds something else than one tensor")
        return _array(value, shape, max_rows)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}).") from error
    except _RefusedError as refusal:
        raise UsageError(
            f"{path} {refusal}; only a pickled float tensor is read. Use the recording instead."
        ) from None


# --- containers -------------------------------------------------------------------------------------------


def _read_stream(stream: io.BytesIO, nested: bool = False) -> Any:
    """The value of a plain pickle, or of the older ``torch.save`` format (first a magic number)."""
    storages: dict[str, _Storage] = {}
    value = _Machine(stream, storages, nested).run()
    if type(value) is not int or value != _LEGACY_MAGIC:
        return value
    if _Machine(stream, storages, nested).run() != _LEGACY_PROTOCOL:
        raise _RefusedError("is of an unknown torch.save version")
    system = _Machine(stream, storages, nested).run()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _RefusedError("was saved on a big-endian machine")
    value = _Machine(stream, storages, nested).run()
    keys = _Machine(stream, storages, nested).run()
    if not isinstance(keys, list):
        raise _RefusedError("lists no storages")
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        header = stream.read(8)
        if storage is None or len(header) != 8 or struct.unpack("<q", header)[0] != storage.count:
            raise _RefusedError("declares a storage that does not fit its data")
        storage.data = stream.read(storage.count * storage.dtype.itemsize)
    return value


def _read_zip(content: bytes) -> Any:
    """The value of a ``torch.save`` file in the zip format."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename: info for info in archive.infolist()}
            program = [name for name in members if name.endswith("/data.pkl")]
            if len(program) != 1:
                raise _RefusedError("is a zip file but not one of torch.save")
            folder = program[0].removesuffix("data.pkl")

            def member(name: str) -> bytes:
                info = members.get(folder + name)
                if info is None:
                    raise _RefusedError(f"lacks its part '{name[:40]}'")
                # torch.save stores without compression, so a part is never larger than the file.
                if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(content):
                    raise _RefusedError("has compressed parts")
                return archive.read(info)

            if folder + "byteorder" in members and member("byteorder") != b"little":
                raise _RefusedError("was saved on a big-endian machine")
            storages: dict[str, _Storage] = {}
            value = _Machine(io.BytesIO(member("data.pkl")), storages).run()
            for key, storage in storages.items():
                storage.data = member(f"data/{key}")
            return value
    except _ZIP_ERRORS as error:
        raise _RefusedError(f"is a damaged zip file ({error})") from error


def _array(tensor: _Tensor, shape: tuple[int | None, ...], max_rows: int) -> NDArray[np.float32]:
    """The numbers of a tensor, once its shape and every element's place in the storage are checked."""
    wanted = tuple("n" if length is None else length for length in shape)
    fits = len(tensor.size) == len(shape) and all(
        1 <= length <= max_rows if expected is None else length == expected
        for length, expected in zip(tensor.size, shape, strict=True)
    )
    if not fits:
        found = f"{len(tensor.size)} axes" if len(tensor.size) > 8 else str(tensor.size)
        raise _RefusedError(f"holds a tensor of shape {found} where {wanted} is expected")
    storage = tensor.storage
    if storage.data is None or len(storage.data) != storage.count * storage.dtype.itemsize:
        raise _RefusedError("declares a storage that does not fit its data")
    last = tensor.offset + sum(
        (length - 1) * step for length, step in zip(tensor.size, tensor.stride, strict=True)
    )
    if last >= storage.count:
        raise _RefusedError("holds a tensor that reaches beyond its storage")
    numbers = np.frombuffer(storage.data, storage.dtype)[tensor.offset :]
    steps = tuple(step * storage.dtype.itemsize for step in tensor.stride)
    return np.lib.stride_tricks.as_strided(numbers, tensor.size, steps).astype(np.float32)


# --- the stack machine ------------------------------------------------------------------------------------


class _Machine:
    """Follows one pickle's opcodes up to STOP.

    Values are numbers, strings, bytes, tuples, lists, dicts with plain keys, and the classes above.

    Args:
        stream: positioned at the pickle; left after its STOP.
        storages: receives the storages that the pickle refers to, by key.
        nested: whether this pickle lies in another one's bytes, where a third level is refused.
    """

    def __init__(self, stream: io.BytesIO, storages: dict[str, _Storage], nested: bool = False) -> None:
        self._stream = stream
        self._storages = storages
        self._nested = nested
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._functions: dict[str, Callable[..., Any]] = {
            "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
            "torch.storage._load_from_bytes": self._load_from_bytes,
            "_codecs.encode": _encode_latin1,
            "collections.OrderedDict": dict,
        }

    def run(self) -> Any:
        """The value on the stack at STOP."""
        try:
            for opcode, argument, _ in pickletools.genops(self._stream):
                if opcode.name == "STOP":
                    return self._pop()
                self._step(opcode.name, argument)
        except (ValueError, OverflowError) as error:  # what genops raises on broken bytes
            raise _RefusedError(f"is not a whole pickle ({str(error)[:80]})") from error
        raise _RefusedError("is not a whole pickle")

    def _step(self, opcode: str, argument: Any) -> None:
        match opcode:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self._stack.append(_MARK)
            case "NONE":
                self._stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                self._stack.append(opcode == "NEWTRUE")
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4":
                self._stack.append(argument)
            case "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                self._stack.append(argument)
            case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
                self._stack.append(argument)
            case "EMPTY_TUPLE":
                self._stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                values = [self._pop() for _ in range(int(opcode[-1]))]
                self._stack.append(tuple(reversed(values)))
            case "TUPLE":
                self._stack.append(tuple(self._pop_to_mark()))
            case "EMPTY_LIST":
                self._stack.append([])
            case "APPEND" | "APPENDS":
                values = [self._pop()] if opcode == "APPEND" else self._pop_to_mark()
                self._top(list).extend(values)
            case "EMPTY_DICT":
                self._stack.append({})
            case "SETITEM" | "SETITEMS":
                values = [self._pop(), self._pop()][::-1] if opcode == "SETITEM" else self._pop_to_mark()
                self._set_items(values)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self._top()
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._top()
            case "GET" | "BINGET" | "LONG_BINGET":
                if argument not in self._memo:
                    raise _RefusedError("refers to a value that it never stored")
                self._stack.append(self._memo[argument])
            case "GLOBAL":
                self._push_global(*argument.split(" ", 1))
            case "STACK_GLOBAL":
                name, module = self._pop(), self._pop()
                self._push_global(module, name)
            case "BINPERSID":
                self._stack.append(self._persistent(self._pop()))
            case "REDUCE":
                arguments, function = self._pop(), self._pop()
                self._stack.append(self._call(function, arguments))
            case _:
                raise _RefusedError(f"uses the pickle instruction {opcode}")

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise _RefusedError("is not a whole pickle")
        return self._stack.pop()

    def _top(self, kind: type = object) -> Any:
        value = self._stack[-1] if self._stack else _MARK
        if value is _MARK or not isinstance(value, kind):
            raise _RefusedError("is not a whole pickle")
        return value

    def _pop_to_mark(self) -> list[Any]:
        values = []
        while self._stack and self._stack[-1] is not _MARK:
            values.append(self._stack.pop())
        if not self._stack:
            raise _RefusedError("is not a whole pickle")
        self._stack.pop()
        return values[::-1]

    def _set_items(self, values: list[Any]) -> None:
        target = self._top(dict)
        for key, value in zip(values[::2], values[1::2], strict=False):
            if not isinstance(key, (str, int)):  # hashing a nested tuple can take for ever
                raise _RefusedError("uses a dictionary key that is neither text nor a number")
            target[key] = value

    def _push_global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise _RefusedError("names a global by something else than text")
        full = f"{module}.{name}"
        if full not in self._functions and full not in _DTYPES:
            raise _RefusedError(f"asks for the global {full[:100]!r}")
        self._stack.append(_Global(full))

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise _RefusedError("calls something that is not a function")
        if function.name not in self._functions:
            raise _RefusedError(f"calls '{function.name}'")
        try:
            return self._functions[function.name](*arguments)
        except TypeError as error:  # a wrong number of arguments
            raise _RefusedError(f"calls '{function.name}' with arguments it does not take") from error

    def _persistent(self, reference: Any) -> _Storage:
        """The storage that ``('storage', type, key, device, count[, None])`` refers to."""
        match reference:
            case ("storage", _Global(kind), str(key), str(_), int(count), *view) if (
                kind in _DTYPES and 0 <= count <= MAX_BYTES and view in ([], [None])
            ):
                storage = self._storages.setdefault(key, _Storage(np.dtype(_DTYPES[kind]), count))
                if storage.dtype != np.dtype(_DTYPES[kind]) or storage.count != count:
                    raise _RefusedError("declares one storage twice, differently")
                return storage
        raise _RefusedError("refers to something else than a storage of floats")

    def _load_from_bytes(self, content: Any) -> Any:
        """A storage saved by ``torch.save`` into the bytes of an outer pickle."""
        if self._nested:
            raise _RefusedError("nests pickles")
        if not isinstance(content, bytes):
            raise _RefusedError("loads a storage from something else than bytes")
        return _read_stream(io.BytesIO(content), nested=True)


def _encode_latin1(text: Any, encoding: Any) -> bytes:
    """Bytes as protocols below 3 write them: text of code points under 256."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _RefusedError("encodes something else than bytes")
    try:
        return text.encode("latin1")
    except UnicodeEncodeError:
        raise _RefusedError("encodes something else than bytes") from None


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
        raise _RefusedError("describes a tensor that is not a plain one")
    return _Tensor(storage, offset, size, stride)
