"""Descriptions of the arrays and tensors in a pickle: sizes are checked before anything is allocated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.safe_pickle.unpickler import Global, RefusedError, set_items

MAX_AXES = 32
#: Lengths, strides and offsets are 64-bit integers in numpy and torch.
_MAX_LENGTH = 2**63
#: Plain numbers, by the codes of numpy's pickles.
_CODES = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})


@dataclass
class Storage:
    """The numbers that torch tensors are views of.

    Attributes:
        dtype: their torch type, without ``torch.``.
        itemsize: bytes per number.
        count: number of numbers that the pickle declares.
        data: the numbers, once they are read.
    """

    dtype: str
    itemsize: int
    count: int
    data: bytearray | None = None


@dataclass(frozen=True)
class StoredTensor:
    """A torch tensor as a pickle describes it: a view of a storage, in numbers, not yet checked."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of a copy of the tensor."""
        return math.prod(self.size) * self.storage.itemsize

    def buffer(self) -> bytearray:
        """Return the storage's bytes after checking that every element of the tensor has its place in them.

        Raises:
            RefusedError: the storage is incomplete, or the view leaves it or repeats its numbers.
        """
        storage = self.storage
        if storage.data is None or len(storage.data) != storage.count * storage.itemsize:
            raise RefusedError("declares a storage that does not fit its data")
        count = math.prod(self.size)
        last = self.offset + sum(
            (length - 1) * step for length, step in zip(self.size, self.stride, strict=True)
        )
        if self.offset > storage.count or (count and last >= storage.count):
            raise RefusedError("holds a tensor that reaches beyond its storage")
        if count > storage.count:
            raise RefusedError("holds a tensor that repeats the numbers of its storage")
        return storage.data

    def set_state(self, state: Any) -> None:
        """Accept autograd's state of a parameter before PyTorch 0.4, which has no meaning here."""
        match state:
            case (bool(_), bool(_), hooks) if _is_empty(hooks):
                return
        raise RefusedError("describes a tensor that is not a plain one")

    def steps(self) -> tuple[int, ...]:
        """Strides, in numbers; 0 along axes of one element, where any stride is the same."""
        pairs = zip(self.size, self.stride, strict=True)
        return tuple(0 if length < 2 else step for length, step in pairs)

    def to_numpy(self) -> NDArray[Any]:
        """Return the tensor, of a type that numpy has, as a view of the storage."""
        numbers = np.frombuffer(self.buffer(), self.storage.dtype)[self.offset :]
        steps = tuple(step * self.storage.itemsize for step in self.steps())
        return np.lib.stride_tricks.as_strided(numbers, self.size, steps)


class OldParameter:
    """A parameter of early PyTorch, whose tensor follows as part of its state."""

    tensor: StoredTensor | None = None

    def set_state(self, state: Any) -> None:
        """Take the tensor; autograd's part of the state has no meaning here."""
        match state:
            case (StoredTensor() as tensor, _, hooks, bool(_), bool(_)) if _is_empty(hooks):
                self.tensor = tensor
            case _:
                raise RefusedError("describes a tensor that is not a plain one")


class PickledArray:
    """A numpy array that a pickle describes, or a scalar as an array without axes."""

    def __init__(self, parts: tuple[Any, ...] | None = None) -> None:
        """``parts``: arguments of :meth:`set_parts`; ``None`` if they follow later."""
        self._parts: tuple[tuple[int, ...], np.dtype[Any], bytes | str, str] | None = None
        if parts is not None:
            self.set_parts(*parts)

    def set_parts(self, shape: Any, dtype: Any, raw: Any, order: Any) -> None:
        """Take shape, data type, bytes and order (``C`` or ``F``), if they fit each other."""
        if (
            not is_lengths(shape)
            or not isinstance(dtype, DataType)
            or not isinstance(raw, bytes | str)
            or not isinstance(order, str)
            or order not in ("C", "F")
        ):
            raise RefusedError("describes an array that is not a plain one")
        if math.prod(shape) * dtype.value.itemsize != len(raw):
            raise RefusedError("describes an array that does not fit its data")
        self._parts = shape, dtype.value, raw, order

    def set_state(self, state: Any) -> None:
        """Take numpy's state of an array: version, shape, data type, order and bytes."""
        match state:
            case (int(_), shape, dtype, bool(fortran), raw):
                self.set_parts(shape, dtype, raw, "F" if fortran else "C")
            case _:
                raise RefusedError("gives a state to something that is not an array")

    @property
    def nbytes(self) -> int:
        """Bytes of a copy of the array."""
        return 0 if self._parts is None else len(self._parts[2])

    def to_numpy(self) -> NDArray[Any]:
        """Return a copy of the array in the machine's byte order."""
        if self._parts is None:
            raise RefusedError("holds an array without numbers")
        shape, dtype, raw, order = self._parts
        if isinstance(raw, str):  # bytes of Python 2
            raw = encode_latin1(raw, "latin1")
        numbers = np.frombuffer(raw, dtype).reshape(shape, order="F" if order == "F" else "C")
        return np.array(numbers, dtype.newbyteorder("="), order="C")


class DataType:
    """``numpy.dtype`` of plain numbers."""

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        if not isinstance(code, str) or code not in _CODES:
            found = code[:20] if isinstance(code, str) else type(code).__name__
            raise RefusedError(f"holds an array of {found!r}, not of plain numbers")
        self.value: np.dtype[Any] = np.dtype(code)

    def set_state(self, state: Any) -> None:
        """Take the byte order from numpy's state of a data type."""
        match state:
            case (int(_), "<" | ">" | "|" | "=" as order, None, None, None, -1, -1, 0):
                self.value = self.value.newbyteorder(order)
            case _:
                raise RefusedError("describes an array that is not of plain numbers")


def is_lengths(value: Any) -> bool:
    """Whether a value is a tuple of at most :data:`MAX_AXES` non-negative 64-bit integers."""
    return (
        isinstance(value, tuple)
        and len(value) <= MAX_AXES
        and all(type(length) is int and 0 <= length < _MAX_LENGTH for length in value)
    )


# --- constructors -----------------------------------------------------------------------------------------


def rebuild_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, metadata: Any = None
) -> StoredTensor:
    """``torch._utils._rebuild_tensor_v2``; autograd's flag and (empty) hooks have no meaning here."""
    for axes in (size, stride):
        if isinstance(axes, tuple) and len(axes) > MAX_AXES:
            raise RefusedError(f"holds a tensor of {len(axes)} axes")
    if (
        not isinstance(storage, Storage)
        or not is_lengths((offset,))
        or not is_lengths(size)
        or not is_lengths(stride)
        or len(size) != len(stride)
        or not isinstance(grad, bool)
        or not _is_empty(hooks)
        or not _is_empty(metadata)
    ):
        raise RefusedError("describes a tensor that is not a plain one")
    return StoredTensor(storage, offset, size, stride)


def rebuild_old_tensor(storage: Any, offset: Any, size: Any, stride: Any) -> StoredTensor:
    """``torch._utils._rebuild_tensor``, of files before PyTorch 0.4."""
    return rebuild_tensor(storage, offset, size, stride, False, None)


def old_parameter(*arguments: Any) -> StoredTensor | OldParameter:
    """``Parameter`` itself, in files before PyTorch 0.4."""
    return rebuild_parameter(*arguments) if arguments else OldParameter()


def rebuild_parameter(tensor: Any, grad: Any = True, hooks: Any = None) -> StoredTensor:
    """``torch._utils._rebuild_parameter``."""
    if not isinstance(tensor, StoredTensor) or not _is_empty(hooks):
        raise RefusedError("describes a tensor that is not a plain one")
    return tensor


def torch_size(axes: Any) -> tuple[int, ...]:
    """``torch.Size``."""
    if not is_lengths(axes):
        raise RefusedError("describes a size that is not a plain one")
    return tuple(axes)


def ignored(*arguments: Any) -> None:
    """Objects without numbers, which may be saved beside a state dict."""


def reconstruct_array(kind: Any, shape: Any, code: Any) -> PickledArray:
    """``numpy._core.multiarray._reconstruct``: an array whose state follows; ``shape`` has no meaning."""
    if not isinstance(kind, Global) or kind.name != "numpy.ndarray":
        raise RefusedError("describes an array that is not a plain one")
    return PickledArray()


def array_scalar(dtype: Any, raw: Any) -> PickledArray:
    """``numpy._core.multiarray.scalar``."""
    return PickledArray(((), dtype, raw, "C"))


def array_from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    """``numpy._core.numeric._frombuffer``."""
    return PickledArray((shape, dtype, raw, order))


def no_bytes() -> bytes:
    """``bytes()``: empty bytes in protocols below 3."""
    return b""


def encode_latin1(text: Any, encoding: Any) -> bytes:
    """``_codecs.encode``: bytes in protocols below 3, written as text of code points under 256."""
    if not isinstance(text, str) or not isinstance(encoding, str) or encoding != "latin1":
        raise RefusedError("encodes something else than bytes")
    try:
        return text.encode("latin1")
    except UnicodeEncodeError:
        raise RefusedError("encodes something else than bytes") from None


def ordered_dict(items: Any = ()) -> dict[Any, Any]:
    """``collections.OrderedDict`` or ``Counter``: empty, of a dict, or of a list of pairs (Python 2)."""
    if isinstance(items, dict):
        return items
    if not isinstance(items, list | tuple) or not all(_is_pair(pair) for pair in items):
        raise RefusedError("describes a dictionary by something else than pairs")
    result: dict[Any, Any] = {}
    set_items(result, [(pair[0], pair[1]) for pair in items])
    return result


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and not value)
