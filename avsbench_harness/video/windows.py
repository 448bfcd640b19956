"""Windows of a task's length over a video, and the times of its predictions.

There are N predictions per second (``fps``), the first at 0.5 s. A second of a window is one frame, the one
at its middle, with the sound of the whole second. For N > 1 there are N sequences of windows, each shifted by
1/N s against the one before, so that the network gets one frame per second as in training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from avsbench_harness.errors import UsageError

#: Largest number of predictions per second.
MAX_FPS = 30


@dataclass(frozen=True)
class Window:
    """One input of the network.

    Attributes:
        index: number of the window, in the order of their ends.
        start: seconds.
        first: index of the prediction at its first second; those of the next seconds follow at a distance of
            ``fps``.
        seconds: number of valid seconds, at most the length of the task's clips.
        padded: whether it is shorter than the task's clips, so that it has padded frames.
        kept: its seconds whose predictions are used; the others are taken from an overlapping window.
    """

    index: int
    start: Fraction
    first: int
    seconds: int
    padded: bool
    kept: tuple[int, ...]

    def last(self, fps: int) -> int:
        """The index of the prediction at its last second."""
        return self.first + (self.seconds - 1) * fps


@dataclass(frozen=True)
class Timeline:
    """The predictions of a video.

    Attributes:
        seconds: length of the video.
        fps: predictions per second.
        length: length of a window, seconds.
        overlap: of consecutive windows, seconds.
    """

    seconds: Fraction
    fps: int
    length: int
    overlap: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.fps <= MAX_FPS:
            raise UsageError(f"--fps must be 1 to {MAX_FPS} predictions per second, got {self.fps}.")
        if not 0 <= self.overlap < self.length:
            raise UsageError(
                f"--overlap must be 0 to {self.length - 1} s, less than a window of {self.length} s, got "
                f"{self.overlap}."
            )

    @property
    def count(self) -> int:
        """The number of predictions; at least one."""
        return max(1, math.ceil((self.seconds - Fraction(1, 2)) * self.fps))

    def time(self, index: int) -> Fraction:
        """The time of the frame of a prediction, seconds."""
        return Fraction(1, 2) + Fraction(index, self.fps)

    def shown(self, index: int) -> tuple[Fraction, Fraction]:
        """The interval in which a prediction is the nearest one, seconds."""
        half = Fraction(1, 2 * self.fps)
        start = self.time(index) - half if index else Fraction(0)
        last = index == self.count - 1
        return start, max(self.seconds, start) if last else self.time(index) + half

    def at(self, time: Fraction) -> int:
        """The index of the prediction that is shown at a time."""
        index = math.floor((time - Fraction(1, 2)) * self.fps + Fraction(1, 2))
        return min(max(index, 0), self.count - 1)

    def windows(self) -> list[Window]:
        """The windows in the order of their last predictions."""
        found = [window for phase in range(min(self.fps, self.count)) for window in self._phase(phase)]
        found.sort(key=lambda window: (window.last(self.fps), window.first))
        return [replace(window, index=index) for index, window in enumerate(found)]

    def _phase(self, phase: int) -> list[Window]:
        """The windows that start ``phase`` / fps s after whole seconds."""
        seconds = -(-(self.count - phase) // self.fps)
        step = self.length - self.overlap
        number = max(0, -(-(seconds - self.length) // step)) + 1
        owners: dict[int, list[int]] = {window: [] for window in range(number)}
        for second in range(seconds):
            earliest = max(0, -(-(second - self.length + 1) // step))
            covering = range(earliest, min(number - 1, second // step) + 1)
            # The one in which it has the most context on both sides.
            best = min(covering, key=lambda n: (abs(2 * (second - n * step) - self.length + 1), n))
            owners[best].append(second - best * step)
        return [
            Window(
                index=0,
                start=Fraction(phase, self.fps) + n * step,
                first=phase + n * step * self.fps,
                seconds=min(self.length, seconds - n * step),
                padded=seconds - n * step < self.length,
                kept=tuple(owners[n]),
            )
            for n in range(number)
        ]
