"""Reading numpy arrays out of a pickle without unpickling: the weights files of detectron2 (``.pkl``).

A machine that runs nothing follows the pickle (:mod:`avsbench_harness.data.pickle_machine`); numpy's own
functions are never called on what the file says, they are answered here and every size is checked. Understood
are arrays and scalars of plain numbers, as numpy 1 and 2 pickle them in protocols 2 to 5, from Python 2 too.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.data.pickle_machine import Global, Machine, RefusedError, encode_latin1

#: Plain numbers, by the codes of numpy's pickles.
_CODES = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
#: What follows version and byte order in the state of a plain data type.
_PLAIN = (None, None, None, -1, -1, 0)
#: Most axes of an array.
_AXES = 32


class PickledArray:
    """An array that a pickle describes, or a scalar as an array without axes."""

    def __init__(self, parts: tuple[Any, ...] | None = None) -> None:
        """``parts``: arguments of :meth:`set_parts`; ``None`` where they follow later."""
        self._parts: tuple[tuple[int, ...], np.dtype[Any], bytes, str] | None = None
        if parts is not None:
            self.set_parts(*parts)

    def set_parts(self, shape: Any, dtype: Any, raw: Any, order: Any) -> None:
        """Take shape, data type, bytes and order (``C`` or ``F``), if they fit each other."""
        if isinstance(raw, str):  # bytes of Python 2
            raw = encode_latin1(raw, "latin1")
        if (
            not isinstance(shape, tuple)
            or len(shape) > _AXES
            or any(type(length) is not int or length < 0 for length in shape)
            or not isinstance(dtype, _DataType)
            or not isinstance(raw, bytes)
            or order not in ("C", "F")
        ):
            raise RefusedError("describes an array that is not a plain one")
        if math.prod(shape) * dtype.value.itemsize != len(raw):
            raise RefusedError("describes an array that does not fit its data")
        self._parts = shape, dtype.value, raw, order

    def to_numpy(self) -> NDArray[Any]:
        """The numbers, a copy in the machine's byte order."""
        if self._parts is None:
            raise RefusedError("holds an array without numbers")
        shape, dtype, raw, order = self._parts
        numbers = np.frombuffer(raw, dtype).reshape(shape, order="F" if order == "F" else "C")
        return np.array(numbers, dtype.newbyteorder("="), order="C")


class _DataType:
    """``numpy.dtype`` of plain numbers."""

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        if not isinstance(code, str) or code not in _CODES:
            raise RefusedError(f"holds an array of {str(code)[:20]!r}, not of plain numbers")
        self.value: np.dtype[Any] = np.dtype(code)

    def set_state(self, state: Any) -> None:
        """Take the byte order out of numpy's state of a data type."""
        match state:
            case (int(_), "<" | ">" | "|" | "=" as order, *rest) if tuple(rest) == _PLAIN:
                self.value = self.value.newbyteorder(order)
            case _:
                raise RefusedError("describes an array that is not of plain numbers")


class _ArrayMachine(Machine):
    """Also knows floats, the strings of Python 2, byte arrays, and states of what numpy makes."""

    def other(self, opcode: str, argument: Any) -> None:
        """Answer the instructions that arrays need beyond those of every reader."""
        match opcode:
            case "BINFLOAT" | "FLOAT" | "STRING" | "BINSTRING" | "SHORT_BINSTRING":
                self.push(argument)
            case "BYTEARRAY8":
                self.push(bytes(argument))
            case "BUILD":
                state = self.pop()
                _build(self.top(), state)
            case _:
                super().other(opcode, argument)


def _build(target: Any, state: Any) -> None:
    """Give an object the state that the pickle has for it."""
    match target, state:
        case (PickledArray() as array, (int(_), shape, dtype, bool(fortran), raw)):
            array.set_parts(shape, dtype, raw, "F" if fortran else "C")
        case (_DataType() as dtype, _):
            dtype.set_state(state)
        case (dict(), _):
            pass  # attributes of an ordered dictionary: the versions of torch's modules
        case _:
            raise RefusedError("gives a state to something that is not an array")


def _reconstruct(kind: Any, shape: Any, code: Any) -> PickledArray:
    if kind != Global("numpy.ndarray"):
        raise RefusedError("describes an array that is not a plain one")
    return PickledArray()


def _scalar(dtype: Any, raw: Any) -> PickledArray:
    return PickledArray(((), dtype, raw, "C"))


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    return PickledArray((shape, dtype, raw, order))


def _no_bytes() -> bytes:
    """``bytes()``, as protocols below 3 write empty bytes."""
    return b""


_NUMPY: tuple[tuple[str, Callable[..., Any]], ...] = (
    ("multiarray._reconstruct", _reconstruct),
    ("multiarray.scalar", _scalar),
    ("numeric._frombuffer", _from_buffer),
)
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": encode_latin1,
    "__builtin__.bytes": _no_bytes,
    "builtins.bytes": _no_bytes,
    "collections.OrderedDict": dict,
    "numpy.dtype": _DataType,
    **{f"numpy.core.{name}": function for name, function in _NUMPY},  # numpy 1
    **{f"numpy._core.{name}": function for name, function in _NUMPY},  # numpy 2
}


def read_array_pickle(path: Path) -> Any:
    """The value that a pickle of plain values and numpy arrays holds; arrays as :class:`PickledArray`.

    Raises:
        RefusedError: the file is anything else; the message names what it asks for.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise RefusedError("is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _ArrayMachine(content, _FUNCTIONS, ("numpy.ndarray",)).run()
