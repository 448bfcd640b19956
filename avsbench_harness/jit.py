"""Counting loops compiled by numba, with the machine code kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile a loop over arrays on its first call; it runs without the GIL.

    The machine code is kept beside the module, or in numba's folder in the user's cache where the
    installation is read-only. Where neither can be written (a container without a home) numba refuses to
    cache; then every process compiles anew, which costs about a second and changes no result.
    """
    try:
        return cast(Function, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # "cannot cache function: no locator available"
        return cast(Function, numba.njit(nogil=True)(function))
