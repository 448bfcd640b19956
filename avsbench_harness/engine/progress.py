"""Speed and memory of a training."""

from __future__ import annotations

import sys
import time
from pathlib import Path


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

    def measured(self) -> dict[str, float]:
        """Time, speed and memory for the training log, see :class:`.StepEntry`."""
        return {
            "time": round(time.time(), 3),
            "clips_per_second": round(self.clips_per_second, 4),
            "memory_gib": round(self.memory_gib(), 4),
        }

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
