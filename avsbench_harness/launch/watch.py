"""The progress of a run, from its files alone: log, heartbeat and record. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from avsbench_harness.engine.heartbeat import Heartbeat, read_heartbeat
from avsbench_harness.launch.runs import RunFacts, RunFiles, run_facts
from avsbench_harness.tracking.json_log import MEASURED, read_log


@dataclass(frozen=True)
class WatchState:
    """The progress of a run.

    Attributes:
        facts: of the run.
        losses: ``loss`` of every step so far.
        last: the log's line of the last step; empty before the first.
        validations: (step, metrics), in order.
        heartbeat: of the process that works on the run, ``None`` without one.
    """

    facts: RunFacts
    losses: Sequence[float]
    last: Mapping[str, Any]
    validations: Sequence[tuple[int, Mapping[str, float | None]]]
    heartbeat: Heartbeat | None

    @property
    def measured(self) -> Mapping[str, float]:
        """Time, speed and memory of the last step."""
        found = self.last.get(MEASURED)
        return found if isinstance(found, Mapping) else {}

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        beat = self.heartbeat
        return {
            **self.facts.to_json(),
            "last": dict(self.last),
            "validations": [{"step": step, **metrics} for step, metrics in self.validations],
            "seconds_left": None if beat is None else beat.seconds_left,
        }


def watch_state(files: RunFiles) -> WatchState:
    """Read the progress of a run."""
    lines = read_log(files.folder / "log.jsonl")
    steps = [line for line in lines if "loss" in line]
    return WatchState(
        facts=run_facts(files),
        losses=[line["loss"] for line in steps],
        last=steps[-1] if steps else {},
        validations=[(line["step"], line["val"]) for line in lines if "val" in line],
        heartbeat=read_heartbeat(files.folder),
    )


def bin_means(values: Sequence[float], count: int) -> list[float]:
    """The means of at most ``count`` parts of equal length of a sequence."""
    parts = min(count, len(values))
    edges = [index * len(values) // parts for index in range(parts + 1)] if parts else []
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
