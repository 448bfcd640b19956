"""Compilation of loops over arrays by numba, with a cache on disk if possible."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile a function on its first call; it releases the GIL, and cannot call another compiled function.

    The machine code is cached next to the module, or in the user's cache folder if the installation is
    read-only. If neither is writable (a container without a home folder), numba cannot cache, and every
    process compiles the function again, which takes about a second. numba itself, slow to import, is
    imported by the first call.
    """

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return _compile(function)(*arguments)

    return cast(Function, call)


@functools.cache
def _compile(function: Function) -> Function:
    import numba

    try:
        return cast(Function, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # "cannot cache function: no locator available"
        return cast(Function, numba.njit(nogil=True)(function))
