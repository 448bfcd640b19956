"""Bootstrap over clips for metrics that are functions of sums over clips.

The metrics of every protocol are functions of the column sums of a table with one row per clip. A resample is
a vector of row multiplicities, and all resamples together are one matrix product; no clip is scored again.
The product skips the zeros of tables with a column per class, most of whose entries are 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from avsbench_harness.jit import compiled

Counts = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float64]

RESAMPLES = 2000
SEED = 0
LEVEL = 0.95
_CHUNK = 250  # maximum number of resamples held in memory at a time
_WEIGHTS = 2**19  # maximum number of multiplicities held in memory at a time
_KNOWN = 2**23  # maximum number of multiplicities that are kept for the next table
_NARROW = 16  # number of columns up to which BLAS is not faster
_ROWS = 512  # rows left out at a time


def resampled_sums(
    tables: list[Floats], resamples: int = RESAMPLES, seed: int = SEED
) -> Iterator[list[Floats]]:
    """Column sums of tables under the same resamples of their rows, in chunks.

    Args:
        tables: (R,K_i) each; the same rows are drawn in every table.
        resamples: number of resamples.
        seed: random seed.

    Yields:
        (chunk, K_i) for each table.
    """
    rows = len(tables[0])
    products = [_product(table) for table in tables]
    weights = _known_weights if rows * resamples <= _KNOWN else _weights
    for chunk in weights(rows, resamples, seed):
        yield [product(chunk) for product in products]


def _weights(rows: int, resamples: int, seed: int) -> Iterator[Counts]:
    """Multiplicities (rows, chunk) of the rows in each resample, at most :data:`_WEIGHTS` at a time."""
    chunk = max(1, min(_CHUNK, _WEIGHTS // rows))
    draw = np.random.default_rng(seed)
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        chosen = draw.integers(0, rows, (count, rows)) * count + np.arange(count)[:, None]
        yield np.bincount(chosen.ravel(), minlength=rows * count).reshape(rows, count).astype(np.uint16)


@functools.lru_cache(maxsize=2)
def _known_weights(rows: int, resamples: int, seed: int) -> tuple[Counts, ...]:
    """All chunks of :func:`_weights`, kept for the next table with equally many rows."""
    return tuple(_weights(rows, resamples, seed))


def _product(table: Floats) -> Callable[[Counts], Floats]:
    """The function from weights (R, count) of the rows to the weighted sums (count, K) of the columns."""
    if table.shape[1] > _NARROW and np.count_nonzero(table) > table.size / 4:
        return lambda weights: weights.T.astype(np.float64) @ table
    by_column = np.ascontiguousarray(table.T)
    present = by_column != 0
    ends, rows, values = present.sum(axis=1).cumsum(), np.nonzero(present)[1], by_column[present]

    def product(weights: Counts) -> Floats:
        sums = np.zeros((len(ends), weights.shape[1]))
        _add_weighted(weights, ends, rows, values, sums)
        return sums.T

    return product


@compiled
def _add_weighted(weights: Any, ends: Any, rows: Any, values: Any, sums: Any) -> None:
    """sums[k] += values[i] * weights[rows[i]] for the entries i of each column k."""
    start = 0
    for k in range(ends.size):
        total = sums[k]
        for i in range(start, ends[k]):
            value, weight = values[i], weights[rows[i]]
            for j in range(total.size):
                total[j] += value * weight[j]
        start = ends[k]


def bootstrap_intervals(
    sums: Floats, reduce: Callable[[Floats], dict[str, Floats]], names: Iterable[str]
) -> dict[str, tuple[float, float] | None]:
    """Bias-corrected and accelerated (BCa) 95 % intervals (Efron 1987).

    Args:
        sums: (R,K), one row per resampled unit (clip or batch).
        reduce: metrics from column sums (..., K).
        names: metrics to compute an interval for.

    Returns:
        (low, high) by metric; ``None`` with fewer than two units or for an undefined metric.
    """
    names = list(names)
    if len(sums) < 2:
        return dict.fromkeys(names)
    total = sums.sum(axis=0)
    estimate = reduce(total)
    left_out = _joined(names, (reduce(total - sums[i : i + _ROWS]) for i in range(0, len(sums), _ROWS)))
    resampled = _joined(names, (reduce(chunk) for (chunk,) in resampled_sums([sums])))
    return {name: bca_interval(float(estimate[name]), resampled[name], left_out[name]) for name in names}


def _joined(names: list[str], chunks: Iterable[dict[str, Floats]]) -> dict[str, Floats]:
    """Concatenate some metrics of chunks; the other metrics are not kept."""
    kept: dict[str, list[Floats]] = {name: [] for name in names}
    for chunk in chunks:
        for name, values in kept.items():
            values.append(np.array(chunk[name]))  # a copy, because it may be a view of all columns
    return {name: np.concatenate(values) for name, values in kept.items()}


def percentile_interval(resampled: Floats) -> tuple[float, float] | None:
    """The 95 % percentile interval of the finite resampled values, ``None`` if there are none."""
    finite = resampled[np.isfinite(resampled)]
    if not finite.size:
        return None
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def bca_interval(estimate: float, resampled: Floats, left_out: Floats) -> tuple[float, float] | None:
    """The BCa 95 % interval of a metric from its resampled and leave-one-out values."""
    from scipy.special import ndtr, ndtri

    resampled = resampled[np.isfinite(resampled)]
    left_out = left_out[np.isfinite(left_out)]
    if not np.isfinite(estimate) or not resampled.size:
        return None
    tail = (1 - LEVEL) / 2
    # Ties count as half below; otherwise a metric that hardly varies would appear biased.
    below = np.mean(resampled < estimate) + np.mean(resampled == estimate) / 2
    bias = ndtri(below)
    influence = left_out.mean() - left_out
    spread = (influence**2).sum() ** 1.5
    if not np.isfinite(bias) or spread == 0:  # all on one side or all equal: use percentiles
        quantiles = np.array([tail, 1 - tail])
    else:
        acceleration = (influence**3).sum() / (6 * spread)
        z = bias + ndtri(np.array([tail, 1 - tail]))
        quantiles = ndtr(bias + z / (1 - acceleration * z))
    low, high = np.quantile(resampled, quantiles)
    return float(low), float(high)
