"""Compiled functions with and without a writable cache folder."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from avsbench_harness.jit import compiled


def total(values):
    result = 0
    for value in values:
        result += value
    return result


@pytest.mark.parametrize("writable", [True, False])
def test_without_a_cache_folder(monkeypatch, writable):
    njit = numba.njit

    def refusing(*arguments, cache=False, **options):
        if cache and not writable:
            raise RuntimeError("cannot cache function 'total': no locator available for file '...'")
        return njit(*arguments, cache=cache, **options)

    monkeypatch.setattr(numba, "njit", refusing)
    assert compiled(total)(np.arange(5)) == 10
