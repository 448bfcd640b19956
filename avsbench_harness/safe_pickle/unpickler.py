"""An unpickler with an allow-list, and the limits that are checked before it runs.

A pickle is a program that may call anything. Here every global that it names is answered by a constructor of
ours or refused; no function of numpy or torch is called with arguments from the file. Python's own unpickler
is used, not the one in C, because its handlers can be replaced one by one: dictionary keys are checked before
they are hashed, and a large memo index allocates nothing.
"""

from __future__ import annotations

import io
import mmap
import pickle
import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any, Never, TypeAlias

#: Source of a pickle; both classes shorten a read that reaches beyond the end.
Stream: TypeAlias = io.BytesIO | mmap.mmap
#: Constructors by the global that they answer; ``None`` for a global that may be named but not called.
Constructors: TypeAlias = Mapping[str, "Callable[..., Any] | None"]

#: Deepest nesting of values, as far as the stack shows it; values deeper than that are harmless, too, because
#: nothing here is recursive.
MAX_DEPTH = 200
#: Most arguments of a constructor.
MAX_ARGUMENTS = 16
#: Dictionary keys are text or integers below this; Python hashes longer integers anew at every use.
MAX_KEY = 2**31

#: Opcodes that change the object below their arguments instead of making a new one.
_IN_PLACE = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"}
_PUT = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GET = {"GET", "BINGET", "LONG_BINGET"}

_CODES = {opcode.name: ord(opcode.code) for opcode in pickletools.opcodes}
_ALLOWED = (
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2",
    "LONG", "LONG1", "LONG4", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST",
    "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE",
    "GET", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "BINPERSID", "REDUCE",
)  # fmt: skip
_ALLOWED_WITH_ARRAYS = (
    *_ALLOWED, "BINFLOAT", "FLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "BYTEARRAY8", "BUILD", "NEWOBJ",
)  # fmt: skip


class RefusedError(Exception):
    """The reason why a file is not read, as the end of the sentence "<file> ..."."""


class Budget:
    """Limits of one file, in proportion to its size.

    Attributes:
        opcodes: number of opcodes that may still be executed.
        bytes: number of bytes that constructors may still allocate.
    """

    def __init__(self, size: int) -> None:
        self.opcodes = min(200_000 + size // 16, 2_000_000)
        self.bytes = 2 * size + 2**20

    def spend(self, count: int) -> None:
        """Allow an allocation of ``count`` bytes, or raise :class:`RefusedError`."""
        self.bytes -= count
        if self.bytes < 0:
            raise RefusedError("describes more data than it holds")


class Global:
    """A global that a pickle names."""

    def __init__(self, name: str, constructor: Callable[..., Any] | None) -> None:
        self.name = name
        self.constructor = constructor


def unpickle(
    stream: Stream,
    constructors: Constructors,
    budget: Budget,
    persistent: Callable[[Any], Any],
    *,
    arrays: bool = False,
) -> Any:
    """Return the value of the pickle at the stream's position, and move the stream behind it.

    Values are numbers, text, bytes, tuples, lists, dicts, :class:`Global`, and results of the constructors.

    Args:
        stream: positioned at the pickle.
        constructors: the allow-list.
        budget: shared by all pickles of a file.
        persistent: answers references to data outside of the pickle.
        arrays: also allow the opcodes that numpy arrays need: floats, byte strings and states.

    Raises:
        RefusedError: the pickle is damaged, exceeds a limit, or needs anything that is not allowed.
    """
    start = stream.tell()
    try:
        _check_limits(stream, budget)
        stream.seek(start)
        return (_ArrayUnpickler if arrays else _Unpickler)(stream, constructors, persistent).load()
    except RefusedError:
        raise
    except (
        pickle.UnpicklingError, struct.error, ValueError, OverflowError, EOFError, IndexError, KeyError,
        AttributeError, TypeError, AssertionError,
    ) as error:  # fmt: skip
        raise RefusedError(f"is not a whole pickle ({str(error)[:80]})") from error


def _check_limits(stream: Stream, budget: Budget) -> None:
    """Follow the opcodes without executing them, and refuse too many of them or values nested too deeply.

    ``genops`` compares declared lengths with the bytes that are there. The stack and the memo hold depths.
    """
    depths: list[int | None] = []  # None is a mark
    memo: dict[int, int] = {}
    for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]
        budget.opcodes -= 1
        if budget.opcodes < 0:
            raise RefusedError("is a pickle of too many instructions")
        if opcode.name == "MARK":
            depths.append(None)
        elif opcode.name in _PUT:
            memo[len(memo) if argument is None else argument] = _depth(depths[-1:])
        elif opcode.name in _GET:
            if argument not in memo:
                raise RefusedError("refers to a value that it never stored")
            depths.append(memo[argument])
        else:
            before = opcode.stack_before
            fixed = before.index(pickletools.markobject) if pickletools.markobject in before else len(before)
            inner = _pop_to_mark(depths) if fixed < len(before) else []
            if len(depths) < fixed:
                raise RefusedError("is not a whole pickle")
            outer = [depths.pop() for _ in range(fixed)][::-1]
            if opcode.name in _IN_PLACE:
                depth = max(_depth(outer[:1]), 1 + _depth([*outer[1:], *inner]))
            else:
                depth = 1 + _depth([*outer, *inner]) if before else 0
            if depth > MAX_DEPTH:
                raise RefusedError("nests values too deeply")
            depths.extend([depth] * len(opcode.stack_after))


def _pop_to_mark(depths: list[int | None]) -> list[int | None]:
    values = []
    while depths and (value := depths.pop()) is not None:
        values.append(value)
    return values  # type: ignore[return-value]


def _depth(values: list[int | None]) -> int:
    return max((value for value in values if value is not None), default=0)


class _Dispatch(dict[int, Callable[..., None]]):
    """Handlers of the allowed opcodes; every other opcode is refused."""

    def __missing__(self, code: int) -> Never:
        name = next(name for name, known in _CODES.items() if known == code)
        raise RefusedError(f"uses the pickle instruction {name}")


class _Unpickler(pickle._Unpickler):
    """Python's unpickler with the handlers replaced that hash, call, or look something up."""

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, stream: Stream, constructors: Constructors, persistent: Callable[[Any], Any]) -> None:
        super().__init__(stream, encoding="latin1")
        self._constructors = constructors
        self._persistent = persistent

    def find_class(self, module: str, name: str) -> Global:
        full = f"{module}.{name}"
        if full not in self._constructors:
            raise RefusedError(f"asks for the global {full[:100]!r}")
        return Global(full, self._constructors[full])

    def persistent_load(self, reference: Any) -> Any:
        return self._persistent(reference)

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack[-1]
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise RefusedError("calls something that is not a function")
        if function.constructor is None:
            raise RefusedError(f"calls '{function.name}'")
        try:
            if len(arguments) > MAX_ARGUMENTS:
                raise TypeError("too many arguments")
            self.stack[-1] = function.constructor(*arguments)
        except TypeError as error:
            raise RefusedError(f"calls '{function.name}' with arguments it does not take") from error

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if hasattr(target, "set_state"):
            target.set_state(state)
        elif not isinstance(target, dict):  # of an ordered dictionary: the versions of torch's modules
            raise RefusedError("gives a state to something that is not an array")

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        set_items(self.stack[-1], [(key, value)])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        set_items(self.stack[-1], list(zip(items[::2], items[1::2], strict=True)))


def set_items(target: Any, items: list[tuple[Any, Any]]) -> None:
    """Put items into a dictionary; keys must be cheap to hash, which nested tuples are not."""
    if not isinstance(target, dict):
        raise RefusedError("is not a whole pickle")
    for key, value in items:
        if not isinstance(key, str) and not (isinstance(key, int) and abs(key) < MAX_KEY):
            raise RefusedError("uses a dictionary key that is neither text nor a small number")
        target[key] = value


def _handlers(names: tuple[str, ...]) -> _Dispatch:
    """Handlers by the code of the opcode."""
    theirs: Mapping[int, Any] = pickle._Unpickler.dispatch
    ours = {
        "REDUCE": _Unpickler.load_reduce,
        "NEWOBJ": _Unpickler.load_reduce,
        "SETITEM": _Unpickler.load_setitem,
        "SETITEMS": _Unpickler.load_setitems,
        "BUILD": _Unpickler.load_build,
        "BYTEARRAY8": theirs[_CODES["BINBYTES8"]],  # Python's allocates the declared length first
    }
    return _Dispatch({_CODES[name]: ours.get(name, theirs[_CODES[name]]) for name in names})


class _ArrayUnpickler(_Unpickler):
    """Also takes the opcodes that numpy arrays need."""


_Unpickler.dispatch = _handlers(_ALLOWED)
_ArrayUnpickler.dispatch = _handlers(_ALLOWED_WITH_ARRAYS)
