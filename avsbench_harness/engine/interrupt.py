"""Stopping a run in good order: a signal is answered between two steps, after the state is saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from avsbench_harness.distributed import all_reduce_max
from avsbench_harness.errors import Interrupted

#: Signals that ask to stop; a second one stops at once.
_DEMANDS = (signal.SIGTERM, signal.SIGINT)

#: Signals by which a cluster says that it will soon take the machine, maybe to every process of a job.
NOTICES = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))


class StopRequest:
    """Remembers the first signal; after SIGTERM or SIGINT a second one of these stops at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def anywhere(self) -> bool:
        """Whether this process or another one of the run was told to stop; all of them must ask together."""
        number = all_reduce_max(self.signal or 0)
        if number and self.signal is None:
            self.signal = signal.Signals(number)
        return self.signal is not None

    def error(self, message: str) -> Interrupted:
        """The error to end with; its exit code is 128 and the signal's number."""
        assert self.signal is not None
        return Interrupted(f"Stopped by {self.signal.name}. {message}", 128 + self.signal)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number in _DEMANDS and self.signal in _DEMANDS:
            raise Interrupted("Stopped at once by a second signal.", 128 + number)
        if self.signal is None or number in _DEMANDS:
            self.signal = signal.Signals(number)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Catch the signals while the block runs; does nothing outside the main thread."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    old = {number: signal.signal(number, request._receive) for number in (*_DEMANDS, *NOTICES)}
    try:
        yield request
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
