"""Stopping a run in good order: a signal is answered between two steps, after the state is saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from avsbench_harness.engine.distributed import highest
from avsbench_harness.errors import Interrupted

_EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


class StopRequest:
    """Remembers the first SIGTERM or SIGINT; a second one of either stops at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def anywhere(self) -> bool:
        """Whether this process or another one of the run was told to stop; all of them must ask together."""
        number = highest(self.signal or 0)
        if number and self.signal is None:
            self.signal = signal.Signals(number)
        return self.signal is not None

    def error(self, message: str) -> Interrupted:
        """The error to end with."""
        assert self.signal is not None
        return Interrupted(f"Stopped by {self.signal.name}. {message}", _EXIT_CODES[self.signal])

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise Interrupted("Stopped at once by a second signal.", _EXIT_CODES[signal.Signals(number)])
        self.signal = signal.Signals(number)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Catch SIGTERM and SIGINT while the block runs; does nothing outside the main thread."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    old = {number: signal.signal(number, request._receive) for number in _EXIT_CODES}
    try:
        yield request
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
