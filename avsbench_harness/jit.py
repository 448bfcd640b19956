"""Compilation of loops over arrays by numba, with a cache on disk if possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile a function on its first call; it releases the GIL.

    The machine code is cached next to the module, or in the user's cache folder if the installation is
    read-only. If neither is writable (a container without a home folder), numba cannot cache, and every
    process compiles the function again, which takes about a second.
    """
    try:
        return cast(Function, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # "cannot cache function: no locator available"
        return cast(Function, numba.njit(nogil=True)(function))
