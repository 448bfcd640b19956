"""Bounds of the metrics of other protocols that the per-clip tables of the canonical protocol imply."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from avsbench_harness.results.clip_table import ClipSums
from avsbench_harness.results.record import ScoreEntry
from avsbench_harness.scoring.api import get_protocol
from avsbench_harness.scoring.davis import Davis
from avsbench_harness.scoring.object import AVSBench
from avsbench_harness.scoring.scores import Floats
from avsbench_harness.scoring.semantic import SemanticCanonical

#: Largest difference of a metric that the published code computes in float32.
FLOAT32 = 1e-4


def bound_faults(entry: ScoreEntry, table: ClipSums) -> Iterator[str]:
    """Metrics of another protocol that contradict the per-clip tables.

    Args:
        entry: scores of all clips under any protocol.
        table: the per-clip tables of the canonical protocol.
    """
    if len(table.clips) != entry.clips:
        yield f"{entry.clips} clips were scored, but the per-clip file has {len(table.clips)}."
        return
    for name, (low, high) in _bounds(entry, table).items():
        value = entry.metrics.get(name)
        if name in entry.metrics and not (value is not None and low - FLOAT32 <= value <= high + FLOAT32):
            yield f"{name} is {value}, but the per-clip file gives {low:.6g} to {high:.6g}."


def _bounds(entry: ScoreEntry, table: ClipSums) -> dict[str, tuple[float, float]]:
    """The lowest and the highest possible value of metrics."""
    protocol = get_protocol("s4" if "J" in table.columns else "avss", entry.protocol)
    if isinstance(protocol, SemanticCanonical):
        found = protocol.reduce(protocol.padded(table.sums, table.columns["frames"]).sum(axis=0))
        return {name: (float(value), float(value)) for name, value in found.items()}
    if isinstance(protocol, AVSBench) and protocol.side is None:
        return _batched(table, entry.batch or 1)
    bounds = {"J": _davis_j(table)} if entry.protocol == Davis.name else {}
    for mean, parts in (("J&F", ("J", "F")), ("mIoU", ("IoU_object", "IoU_background"))):
        values = [entry.metrics.get(part) for part in parts]
        known = [value for value in values if value is not None]
        if mean in entry.metrics and known:
            bounds[mean] = (float(np.mean(known)),) * 2
    return bounds


def _batched(table: ClipSums, batch: int) -> dict[str, tuple[float, float]]:
    """J and F of AVSBench's code: means over batches; the maximum of a mean curve has an upper bound."""
    frames = table.columns["frames"]
    filled = frames - table.columns["empty_frames"] if "empty_frames" in table.columns else None
    starts = range(0, len(frames), batch)
    j, f = table.columns["J"], np.nan_to_num(table.columns["F"])
    best = [_f_bound(f[i : i + batch], None if filled is None else filled[i : i + batch]) for i in starts]
    means = [np.average(j[i : i + batch], weights=frames[i : i + batch]) for i in starts]
    return {"J": (_mean(means), _mean(means)), "F": (_mean(best) if batch == 1 else 0.0, _mean(best))}


def _f_bound(f: Floats, filled: Floats | None) -> float:
    if filled is None:
        return float(f.max())
    return float(np.average(f, weights=filled)) if filled.any() else 0.0


def _davis_j(table: ClipSums) -> tuple[float, float]:
    """J of DAVIS: frames without an object score 0 or 1."""
    columns = table.columns
    if not columns.keys() >= {"J_object", "empty_frames"}:
        return 0.0, 1.0
    empty = columns["empty_frames"] / columns["frames"]
    low = np.nan_to_num(columns["J_object"]) * (1 - empty)
    return float(low.mean()), float((low + empty).mean())


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
