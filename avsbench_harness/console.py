"""Standard error of the command line: log messages and progress bars on one console.

Library code logs through :mod:`logging`; ``avsb`` prints these messages here, above the progress bars. Where
standard error is not a terminal, progress is a line every :data:`LINE_SECONDS`. Only rank 0 of several
processes prints.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from avsbench_harness.distributed import rank
from avsbench_harness.errors import printable

Item = TypeVar("Item")

#: Seconds without a line after which progress is printed where standard error is not a terminal.
LINE_SECONDS = 20.0

console = Console(stderr=True, quiet=rank() > 0)

# Time of the last line, of time.monotonic.
_printed = time.monotonic()


def _print_line(text: str) -> None:
    """Print a plain line; brackets are text, not markup."""
    global _printed
    _printed = time.monotonic()
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


class ConsoleHandler(logging.Handler):
    """Prints log messages as plain lines; brackets are text, not markup."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        _print_line(self.format(record))


def configure_logging() -> None:
    """Print the package's messages from level INFO on; idempotent."""
    logger = logging.getLogger("avsbench_harness")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, ConsoleHandler) for handler in logger.handlers):
        logger.addHandler(ConsoleHandler())


class _NoteColumn(ProgressColumn):
    """The note of a task, cut off at the end of the line; the other columns keep their widths."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")

    def get_table_column(self) -> Column:
        return Column(no_wrap=False)  # rich shrinks the columns that may wrap first


class _LineProgress(Progress):
    """A progress display that prints lines instead of bars."""

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._print_if_due(task_id)

    def update(self, task_id: TaskID, **values: Any) -> None:
        super().update(task_id, **values)
        self._print_if_due(task_id)

    def _print_if_due(self, task_id: TaskID) -> None:
        task = self._tasks[task_id]
        if time.monotonic() - _printed < LINE_SECONDS or task.total is None or task.finished:
            return
        left = TimeRemainingColumn().render(task).plain
        parts = [f"{task.completed:.0f}/{task.total:.0f}", f"{left} left", task.fields["note"]]
        _print_line(f"{task.description}: {', '.join(filter(None, parts))}")


def progress_bar(*, refresh: bool = True) -> Progress:
    """A progress display: bars on a terminal, else lines.

    A task has a description of at most 24 characters, a total and a ``note``. On a terminal of 80 columns the
    note is cut off, the numbers and the time left are not. ``refresh=False`` leaves out the thread that
    refreshes the bars, which would disturb what is timed.
    """
    if not console.is_terminal:
        return _LineProgress(disable=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        _NoteColumn(),
        console=console,
        transient=True,
        auto_refresh=refresh,
    )


@contextmanager
def counter(description: str, total: int, *, refresh: bool = True) -> Iterator[Callable[[int], None]]:
    """A progress bar; yields the function that advances it by a number of items.

    With ``refresh=False`` it changes in that function alone, see :func:`progress_bar`.
    """
    with progress_bar(refresh=refresh) as progress:
        display = progress.add_task(description, total=total, note="")

        def advance(count: int) -> None:
            progress.advance(display, count)
            if not refresh:
                progress.refresh()

        yield advance


def track(items: Sequence[Item], description: str) -> Iterator[Item]:
    """The items, with a progress bar that advances after each."""
    with counter(description, len(items)) as advance:
        for item in items:
            yield item
            advance(1)
