"""The training log of a run, and its speed and memory."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TrainingLog:
    """One JSON line per step and validation, in ``log.jsonl``.

    Opening it for a run that resumes from ``step`` removes the lines of later steps, which are repeated.
    """

    def __init__(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _lines(path) if line.get("step", 0) <= step]
        self._file = path.open("w", encoding="utf-8")
        for line in kept:
            self.write(line)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append and flush one line."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Meter:
    """Clips per second over the last steps, and peak memory."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._last = time.perf_counter()
        self.clips_per_second = 0.0

    def tick(self, clips: int) -> None:
        """Record one step of ``clips`` clips."""
        now = time.perf_counter()
        rate = clips / max(now - self._last, 1e-9)
        self._last = now
        self.clips_per_second = 0.9 * self.clips_per_second + 0.1 * rate if self.clips_per_second else rate

    def memory_gib(self) -> float:
        """Peak memory in GiB: of the CUDA device, else of this process."""
        if self._device.startswith("cuda"):
            import torch  # slow to import, and not needed by all commands

            return torch.cuda.max_memory_allocated(self._device) / 2**30
        return peak_rss_gib()


def peak_rss_gib() -> float:
    """Peak resident memory of this process in GiB; 0 where the system does not report it."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        # Linux: getrusage would include the memory of the parent before the fork.
        return int(status.split("VmHWM:")[1].split()[0]) / 2**20
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) / (2**30 if sys.platform == "darwin" else 2**20)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a log; an incomplete last line is dropped."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines
