"""The report of a data check, as values, as JSON and as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avsbench_harness.data.avsbench.tree import EXPECTED
from avsbench_harness.tasks import Split, get_task

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

#: Kinds of faults: a missing file, a malformed table, a wrong number of clips, a file that cannot be decoded,
#: an image of the wrong size, a mask with a value or colour of no class, masks of other classes than
#: listed, a split without any object in its masks, a damaged recording or one of another length.
FaultKind = Literal["missing", "table", "count", "unreadable", "size", "colour", "classes", "empty", "audio"]


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        task: the task's name.
        kind: the kind of fault.
        path: the file, relative to the data root, with forward slashes.
        message: the message without the path in front.
    """

    task: str
    kind: FaultKind
    path: str
    message: str


@dataclass(frozen=True)
class Count:
    """A number found; ``expected`` is ``None`` if the expected number is unknown."""

    found: int
    expected: int | None

    def __str__(self) -> str:
        if self.expected is None or self.found == self.expected:
            return f"{self.found:,}"
        return f"{self.found:,} of {self.expected:,}"


@dataclass(frozen=True)
class SplitCounts:
    """Clips in the table vs. the official number; files found vs. files of the clips."""

    clips: Count
    frames: Count
    masks: Count
    audio: Count


@dataclass(frozen=True)
class TaskReport:
    """The report of one task.

    Attributes:
        task: the task's name.
        folder: its folder, ``None`` if there is none.
        synthetic: whether the data are marked as synthetic.
        tree: the content of that folder (or of the root), as lines.
        counts: per split; empty if the table could not be read.
        faults: all faults, in the order of the table.
        warnings: what may be wrong, in the same order; it does not affect the exit code.
        notes: remarks that are not faults, as sentences.
    """

    task: str
    folder: Path | None
    synthetic: bool
    tree: list[str]
    counts: dict[Split, SplitCounts]
    faults: list[Fault]
    warnings: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """The report of a data root."""

    root: Path
    tasks: list[TaskReport]

    @property
    def faults(self) -> list[Fault]:
        """All faults, task by task."""
        return [fault for task in self.tasks for fault in task.faults]

    @property
    def warnings(self) -> list[Fault]:
        """All warnings, task by task."""
        return [warning for task in self.tasks for warning in task.warnings]

    @property
    def counts(self) -> dict[str, dict[Split, SplitCounts]]:
        """The numbers of clips and files per task and split."""
        return {task.task: task.counts for task in self.tasks}

    @property
    def ok(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    @property
    def missing(self) -> bool:
        """Whether a file, a table or a clip is missing."""
        return any(fault.kind in ("missing", "count") for fault in self.faults)

    def to_json(self) -> dict[str, Any]:
        """The whole report as JSON values."""
        tasks = [{**asdict(task), "folder": task.folder and str(task.folder)} for task in self.tasks]
        return {"format": 1, "root": str(self.root), "ok": self.ok, "missing": self.missing, "tasks": tasks}


def render_report(report: Report, limit: int = 20) -> RenderableType:
    """Return ``rich`` text: the counts, the faults and warnings, and the trees of tasks with missing files.

    Args:
        report: the report.
        limit: number of faults to list, and a quarter of that of warnings; the others are counted.
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for task in report.tasks:
        if not task.counts or any(fault.kind == "missing" for fault in task.faults):
            parts += [_trees(task), Text()]
    if any(task.counts for task in report.tasks):
        parts += [_counts(report.tasks), Text()]
    parts += [Text(f"Note: {note}\n", style="yellow") for task in report.tasks for note in task.notes]
    parts += _listed(report.warnings, "warning", "yellow", max(1, limit // 4))
    parts += _listed(report.faults, "fault", "red", limit)
    if report.ok:
        parts.append(Text(f"{report.root} is complete: every file was opened.", style="green"))
    else:
        parts.append(Text(f"{report.root} has {_number(len(report.faults), 'fault')}.", "red"))
    return Group(*parts)


def _listed(faults: Sequence[Fault], what: str, style: str, limit: int) -> list[RenderableType]:
    """One line per fault or warning, up to a limit."""
    from rich.text import Text

    lines: list[RenderableType] = [
        Text.assemble((f"{fault.kind:<10} ", style), (fault.path, "bold"), " ", fault.message)
        for fault in faults[:limit]
    ]
    more = len(faults) - limit
    if more > 0:
        lines.append(Text(f"... and {_number(more, f'more {what}')}; --json lists all of them.", style))
    return lines


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _trees(task: TaskReport) -> Table:
    from rich.table import Table
    from rich.text import Text

    title = get_task(task.task).title + (", SYNTHETIC" if task.synthetic else "")
    where = f"found in {task.folder.parent}" if task.folder else "found"
    table = Table(title=title, title_justify="left", expand=False)
    table.add_column("expected", ratio=1, overflow="fold")
    table.add_column(Text(where), ratio=1, overflow="fold")
    table.add_row(Text(EXPECTED[task.task]), Text("\n".join(task.tree)))
    return table


def _counts(tasks: Sequence[TaskReport]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in ("task", "split"):
        table.add_column(column)
    for column in ("clips", "frames", "masks", "recordings"):
        table.add_column(column, justify="right")
    for task in tasks:
        for split, counts in task.counts.items():
            cells = (counts.clips, counts.frames, counts.masks, counts.audio)
            table.add_row(
                task.task + (", SYNTHETIC" if task.synthetic else ""),
                split,
                *(Text(str(cell), "" if cell.expected in (None, cell.found) else "red") for cell in cells),
            )
    return table
