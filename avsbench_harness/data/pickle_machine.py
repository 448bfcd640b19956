"""Following a pickle's instructions without running anything.

A pickle is a program that may call anything. Here its opcodes are only read: a small stack machine follows
them, a global is a mere name on the stack, and the few names that a reader expects are answered by functions
that the reader brings along. Every other name and opcode is refused, so no file can do more than describe
values.
"""

from __future__ import annotations

import io
import mmap
import pickletools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

#: What a pickle is read from; both answer a length beyond the end with what is there.
Stream: TypeAlias = io.BytesIO | mmap.mmap

_MARK = object()


class RefusedError(Exception):
    """What is wrong with the pickle, as the end of the sentence "<file> ..."."""


@dataclass(frozen=True)
class Global:
    """A name that the pickle asks for; nothing is ever looked up by it."""

    name: str


class Machine:
    """Follows one pickle's opcodes up to STOP.

    Values are numbers, strings, bytes, tuples, lists, dicts with plain keys, :class:`Global`, and what the
    functions return.

    Args:
        stream: positioned at the pickle; left after its STOP.
        functions: what answers the calls of a global, by the global's name.
        names: globals that may stand in the pickle without being called.
        persistent: answers references to what lies outside the pickle; ``None`` refuses them.
    """

    def __init__(
        self,
        stream: Stream,
        functions: Mapping[str, Callable[..., Any]],
        names: Collection[str] = (),
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self._stream = stream
        self._functions = functions
        self._names = names
        self._persistent = persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value on the stack at STOP."""
        try:
            for opcode, argument, _ in pickletools.genops(self._stream):  # type: ignore[arg-type]
                if opcode.name == "STOP":
                    return self.pop()
                self._step(opcode.name, argument)
        except (ValueError, OverflowError) as error:  # what genops raises on broken bytes
            raise RefusedError(f"is not a whole pickle ({str(error)[:80]})") from error
        raise RefusedError("is not a whole pickle")

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
                values = [self.pop() for _ in range(int(opcode[-1]))]
                self._stack.append(tuple(reversed(values)))
            case "TUPLE":
                self._stack.append(tuple(self._pop_to_mark()))
            case "EMPTY_LIST":
                self._stack.append([])
            case "APPEND" | "APPENDS":
                values = [self.pop()] if opcode == "APPEND" else self._pop_to_mark()
                self.top(list).extend(values)
            case "EMPTY_DICT":
                self._stack.append({})
            case "SETITEM" | "SETITEMS":
                values = [self.pop(), self.pop()][::-1] if opcode == "SETITEM" else self._pop_to_mark()
                self._set_items(values)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self.top()
            case "MEMOIZE":
                self._memo[len(self._memo)] = self.top()
            case "GET" | "BINGET" | "LONG_BINGET":
                if argument not in self._memo:
                    raise RefusedError("refers to a value that it never stored")
                self._stack.append(self._memo[argument])
            case "GLOBAL":
                self._push_global(*argument.split(" ", 1))
            case "STACK_GLOBAL":
                name, module = self.pop(), self.pop()
                self._push_global(module, name)
            case "BINPERSID" if self._persistent is not None:
                self._stack.append(self._persistent(self.pop()))
            case "REDUCE":
                arguments, function = self.pop(), self.pop()
                self._stack.append(self._call(function, arguments))
            case _:
                self.other(opcode, argument)

    def other(self, opcode: str, argument: Any) -> None:
        """An instruction beyond those that every reader needs; here it is refused."""
        raise RefusedError(f"uses the pickle instruction {opcode}")

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def pop(self) -> Any:
        """Take the value from the top of the stack."""
        if not self._stack or self._stack[-1] is _MARK:
            raise RefusedError("is not a whole pickle")
        return self._stack.pop()

    def top(self, kind: type = object) -> Any:
        """The value on the top of the stack, which must be of that kind."""
        value = self._stack[-1] if self._stack else _MARK
        if value is _MARK or not isinstance(value, kind):
            raise RefusedError("is not a whole pickle")
        return value

    def _pop_to_mark(self) -> list[Any]:
        values = []
        while self._stack and self._stack[-1] is not _MARK:
            values.append(self._stack.pop())
        if not self._stack:
            raise RefusedError("is not a whole pickle")
        self._stack.pop()
        return values[::-1]

    def _set_items(self, values: list[Any]) -> None:
        target = self.top(dict)
        for key, value in zip(values[::2], values[1::2], strict=False):
            if not isinstance(key, (str, int)):  # hashing a nested tuple can take for ever
                raise RefusedError("uses a dictionary key that is neither text nor a number")
            target[key] = value

    def _push_global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise RefusedError("names a global by something else than text")
        full = f"{module}.{name}"
        if full not in self._functions and full not in self._names:
            raise RefusedError(f"asks for the global {full[:100]!r}")
        self._stack.append(Global(full))

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise RefusedError("calls something that is not a function")
        if function.name not in self._functions:
            raise RefusedError(f"calls '{function.name}'")
        try:
            return self._functions[function.name](*arguments)
        except TypeError as error:  # a wrong number of arguments
            raise RefusedError(f"calls '{function.name}' with arguments it does not take") from error


def encode_latin1(text: Any, encoding: Any) -> bytes:
    """``_codecs.encode``: bytes as protocols below 3 write them, text of code points under 256."""
    if not isinstance(text, str) or encoding != "latin1":
        raise RefusedError("encodes something else than bytes")
    try:
        return text.encode("latin1")
    except UnicodeEncodeError:
        raise RefusedError("encodes something else than bytes") from None
