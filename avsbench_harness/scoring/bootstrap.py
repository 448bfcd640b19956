"""Bootstrap over clips for metrics that are functions of sums over clips.

Because every protocol's metrics come from column sums of a table with one row per clip, a resample is a
vector of multiplicities and thousands of them are one matrix product; no clip is scored twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 2000
SEED = 0
LEVEL = 0.95
_CHUNK = 250  # resamples held in memory at a time


def resampled_sums(
    tables: list[Floats], resamples: int = RESAMPLES, seed: int = SEED
) -> Iterator[list[Floats]]:
    """Column sums of tables under the same resamples of their rows, in chunks.

    Args:
        tables: (R,K_i) each; the rows of one unit are drawn together.
        resamples: how many.
        seed: of the draw.

    Yields:
        for each table, (chunk, K_i).
    """
    rows = len(tables[0])
    draw = np.random.default_rng(seed)
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        chosen = draw.integers(0, rows, (count, rows)) + rows * np.arange(count)[:, None]
        weights = np.bincount(chosen.ravel(), minlength=count * rows).reshape(count, rows).astype(np.float64)
        yield [weights @ table for table in tables]


def bootstrap_intervals(
    sums: Floats, reduce: Callable[[Floats], dict[str, Floats]], names: Iterable[str]
) -> dict[str, tuple[float, float] | None]:
    """Bias-corrected and accelerated intervals (Efron 1987) at the 95 % level.

    Args:
        sums: (R,K), one row per resampled unit.
        reduce: metrics from column sums (..., K).
        names: which metrics.
    """
    names = list(names)
    if len(sums) < 2:
        return dict.fromkeys(names)
    total = sums.sum(axis=0)
    estimate = reduce(total)
    left_out = reduce(total - sums)
    chunks = [reduce(chunk) for (chunk,) in resampled_sums([sums])]
    return {
        name: _bca(float(estimate[name]), np.concatenate([chunk[name] for chunk in chunks]), left_out[name])
        for name in names
    }


def _bca(estimate: float, resampled: Floats, left_out: Floats) -> tuple[float, float] | None:
    """One interval from the resampled and the leave-one-out values of a metric."""
    from scipy.special import ndtr, ndtri

    resampled = resampled[np.isfinite(resampled)]
    left_out = left_out[np.isfinite(left_out)]
    if not np.isfinite(estimate) or not resampled.size:
        return None
    tail = (1 - LEVEL) / 2
    # Half of the ties count as below, so that a metric that hardly varies is not taken for biased.
    below = np.mean(resampled < estimate) + np.mean(resampled == estimate) / 2
    bias = ndtri(below)
    influence = left_out.mean() - left_out
    spread = (influence**2).sum() ** 1.5
    if not np.isfinite(bias) or spread == 0:  # all resamples on one side, or all equal: plain percentiles
        quantiles = np.array([tail, 1 - tail])
    else:
        acceleration = (influence**3).sum() / (6 * spread)
        z = bias + ndtri(np.array([tail, 1 - tail]))
        quantiles = ndtr(bias + z / (1 - acceleration * z))
    low, high = np.quantile(resampled, quantiles)
    return float(low), float(high)
