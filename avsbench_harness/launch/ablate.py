"""The runs of an ablation table: its rows as a grid, and its page from the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avsbench_harness.ablation import tables as tables
from avsbench_harness.ablation.page import to_csv, to_markdown
from avsbench_harness.errors import UsageError
from avsbench_harness.files import write_text
from avsbench_harness.launch.sweep import Change, Grid
from avsbench_harness.results.record import read_records


@dataclass(frozen=True)
class Choice:
    """On what an ablation is run; ``None`` takes the first of the paper's table.

    Attributes:
        rows: names of the rows; empty for all. The full method is always among them.
        changes: further recipe keys, alike in every row.
    """

    task: str | None = None
    backbone: str | None = None
    seeds: int = 1
    data: Path | None = None
    preset: str | None = None
    pretrained: bool | None = None
    rows: Sequence[str] = ()
    changes: dict[str, Any] | None = None


def grid(name: str, choice: Choice) -> Grid:
    """The grid of an ablation table, ``method/table``.

    Raises:
        UsageError: no such table or row, or a further change of a key that the rows change.
    """
    _, ablation = tables.get_ablation(name)
    task = choice.task or ablation.tasks[0]
    known = {row.name: row for row in ablation.rows_of(task)}
    missing = [row for row in choice.rows if row not in known]
    if missing:
        raise UsageError(f"{name} has no row '{missing[0]}'; it has {', '.join(map(repr, known))}.")
    clash = set(ablation.keys(task)) & set(choice.changes or {})
    if clash:
        raise UsageError(f"The rows of {name} change '{min(clash)}' themselves; leave it out of --set.")
    wanted = {*choice.rows, ablation.full(task).name} if choice.rows else set(known)
    if choice.seeds < 1:
        raise UsageError(f"--seeds takes a number of seeds, at least 1; got {choice.seeds}.")
    return Grid(
        method=[name.rpartition("/")[0]],
        backbone=[choice.backbone or ablation.backbones[0]],
        task=[task],
        variant=[ablation.variant],
        seeds=list(range(choice.seeds)),
        data=choice.data,
        preset=choice.preset,
        pretrained=choice.pretrained,
        set={**ablation.set, **(choice.changes or {})},
        rows=[Change(name=row.name, set=row.set) for row in known.values() if row.name in wanted],
    )


def write_tables(name: str, results: Path) -> tuple[Path, Path]:
    """Write ``ablations/<method>-<table>.md`` and ``.csv`` from the records in a folder; their paths."""
    method, ablation = tables.get_ablation(name)
    made = tables.sections(method, ablation, read_records(results), results)
    table = name.rpartition("/")[2]
    page = results / "ablations" / f"{method.name}-{table}.md"
    write_text(page, to_markdown(f"{method.name}/{table}", ablation, made))
    write_text(page.with_suffix(".csv"), to_csv(ablation, made))
    return page, page.with_suffix(".csv")
