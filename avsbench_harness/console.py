"""Standard error of the command line: log messages and progress bars on one console.

Library code logs through :mod:`logging`; ``avsb`` prints these messages here, above the progress bars. Only
rank 0 of several processes prints.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from avsbench_harness.distributed import rank
from avsbench_harness.errors import printable

Item = TypeVar("Item")

console = Console(stderr=True, quiet=rank() > 0)


class ConsoleHandler(logging.Handler):
    """Prints log messages as plain lines; brackets are text, not markup."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        console.print(printable(self.format(record)), markup=False, highlight=False, soft_wrap=True)


def configure_logging() -> None:
    """Print the package's messages from level INFO on; idempotent."""
    logger = logging.getLogger("avsbench_harness")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, ConsoleHandler) for handler in logger.handlers):
        logger.addHandler(ConsoleHandler())


def progress_bar() -> Progress:
    """A progress display; invisible where stderr is not a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


@contextmanager
def counter(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar; yields the function that advances it by a number of items."""
    with progress_bar() as progress:
        display = progress.add_task(description, total=total, note="")
        yield lambda count: progress.advance(display, count)


def track(items: Sequence[Item], description: str) -> Iterator[Item]:
    """The items, with a progress bar that advances after each."""
    with counter(description, len(items)) as advance:
        for item in items:
            yield item
            advance(1)
