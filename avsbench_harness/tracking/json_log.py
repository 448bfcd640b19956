"""The training log of a run as JSON lines, in its folder's ``log.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avsbench_harness.tracking.tracker import StepEntry, Tracker, ValidationEntry

#: Key of the values that depend on the machine and the moment. Without it, the log of a run is bitwise
#: reproducible on the CPU, interrupted or not.
MEASURED = "measured"

#: Keys of a line that are not names of losses or diagnostics.
KEYS = ("step", "epoch", "val", "lr", "gradient_norm", MEASURED)


class JsonLog(Tracker):
    """One JSON line per step and validation.

    Opening it for a run that resumes from ``step`` removes the lines of later steps, which are repeated.

    Args:
        path: the file.
        step: number of steps that the run has done.
    """

    def __init__(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_log(path) if line.get("step", 0) <= step]
        self._file = path.open("w", encoding="utf-8")
        for line in kept:
            self._write(line)

    def log_step(self, entry: StepEntry) -> None:
        """Append and flush a line with ``loss``."""
        self._write(
            {
                "step": entry.step,
                "epoch": entry.epoch,
                **entry.diagnostics,
                **entry.losses,
                "lr": entry.lr,
                "gradient_norm": entry.gradient_norm,
                MEASURED: dict(entry.measured),
            }
        )

    def log_validation(self, entry: ValidationEntry) -> None:
        """Append and flush a line with ``val``; images are left out."""
        values = {"step": entry.step, "epoch": entry.epoch, "val": dict(entry.metrics)}
        self._write({**values, MEASURED: dict(entry.measured)})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def read_log(path: Path, *, measured: bool = True) -> list[dict[str, Any]]:
    """The complete lines of a log; none if there is no file.

    Args:
        path: a run's ``log.jsonl``.
        measured: whether to keep the values that differ between repetitions, see :data:`MEASURED`.
    """
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:  # a process was killed while it wrote the line
            continue
        if isinstance(line, dict):
            lines.append({key: value for key, value in line.items() if measured or key != MEASURED})
    return lines
