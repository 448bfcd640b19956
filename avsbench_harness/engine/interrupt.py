"""Graceful stop of a run: a signal is handled between two steps, after the state is saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from avsbench_harness.distributed import all_reduce_max
from avsbench_harness.errors import Interrupted

#: Signals that request a stop; a second one stops immediately.
_STOP = (signal.SIGTERM, signal.SIGINT)

#: Preemption signals of clusters, possibly sent to every process of a job.
PREEMPTION = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))


class StopRequest:
    """The first signal that was received; a second SIGTERM or SIGINT stops immediately."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def anywhere(self) -> bool:
        """Whether any process of the run received a signal; a collective."""
        number = all_reduce_max(self.signal or 0)
        if number and self.signal is None:
            self.signal = signal.Signals(number)
        return self.signal is not None

    def error(self, message: str) -> Interrupted:
        """The error to end with; its exit code is 128 plus the signal's number."""
        assert self.signal is not None
        return Interrupted(f"Stopped by {self.signal.name}. {message}", 128 + self.signal)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number in _STOP and self.signal in _STOP:
            raise Interrupted("Stopped immediately by a second signal.", 128 + number)
        if self.signal is None or number in _STOP:
            self.signal = signal.Signals(number)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Catch the signals during the block; a no-op outside the main thread."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    old = {number: signal.signal(number, request._receive) for number in (*_STOP, *PREEMPTION)}
    try:
        yield request
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
