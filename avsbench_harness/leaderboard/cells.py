"""The rows of a leaderboard table as plain-text cells, shared by the Markdown page and the HTML site."""

from __future__ import annotations

import functools
import statistics
from dataclasses import dataclass

from avsbench_harness.errors import one_line
from avsbench_harness.leaderboard.formatting import mean_sd, percent, seed_label
from avsbench_harness.leaderboard.tables import Row, Table
from avsbench_harness.results.record import Record
from avsbench_harness.results.reported import reported_values

#: Explanation of the numbers above every leaderboard.
EXPLANATION = """\
Every number is measured, from the linked record and under the protocol named above its table, unless its
column or section is headed "reported": reported values are taken from papers and are not ranked. Scores are
in percent. Results of several seeds are mean ± standard deviation; the result of a single seed has its 95 %
bootstrap interval over clips. Rows with the same rank do not differ significantly from the first row of that
rank (paired bootstrap over clips, 95 %). The audio gain is the score minus that with swapped audio
(`avsb robustness`), in percentage points: a model that ignores the audio has a gain of 0.
"""

#: Warning above synthetic results.
SYNTHETIC_NOTE = (
    "Results on synthetic data verify the code; they are no evidence about the quality of a method."
)

#: Heading and explanation of the tables of AVS-Mini.
MINI_TITLE = "AVS-Mini: real recordings, composed pictures"
MINI_NOTE = (
    "AVS-Mini has recordings of ten kinds of sounds, and pictures composed of drawings. Scores on it do not "
    "compare with scores on AVSBench."
)

#: Explanation above the reported values.
REPORTED_NOTE = """\
Values as printed in the papers, in percent, with the protocols that they were measured under. One row is one
result; the papers that print it are its sources, the method's own paper first. Where sources differ by more
than 0.1, the value is that of the method's own paper, else the most frequent one, and marked with *. None of
these values was measured by this harness.
"""

#: Longest text of a cell.
MAX_CELL = 400


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: plain text, one printable line of at most :data:`MAX_CELL` characters.
        sort: sort key if it differs from the text.
    """

    text: str
    sort: float | str | None = None

    def __post_init__(self) -> None:
        """Neutralise untrusted text."""
        object.__setattr__(self, "text", one_line(self.text, MAX_CELL))


@dataclass(frozen=True)
class FormattedRow:
    """One row of a table.

    Attributes:
        backbone: the filter value of the row.
        cells: one per heading except the last.
        records: (label, record) to link in the last column.
    """

    backbone: str
    cells: tuple[Cell, ...]
    records: tuple[tuple[str, Record], ...]


def headings(table: Table) -> list[str]:
    """The column headings of a table."""
    gain = [f"audio gain ({table.columns[0][1]})"] if table.has_gains else []
    return [
        "rank", "method", "backbone", "recipe", *(heading for _, _, heading in table.columns), *gain,
        "reported", "seeds", "M parameters", "GMACs", "clips/s", "GiB", "date", "records",
    ]  # fmt: skip


def format_rows(table: Table) -> list[FormattedRow]:
    """The rows of a table: ranked rows, then failed runs."""
    return [
        *(_format_row(row, table) for row in table.rows),
        *(_format_failure(record, len(headings(table))) for record in table.failed),
    ]


def _format_row(row: Row, table: Table) -> FormattedRow:
    date = row.newest.created[:10]
    cells = [
        Cell(str(row.rank), row.rank),
        Cell(method_label(row.method, row.variant)),
        Cell(row.backbone or "n/a (not stated)"),
        Cell(row.recipe),
        *(_score_cell(row, table, protocol, metric) for protocol, metric, _ in table.columns),
        *([_gain_cell(row)] if table.has_gains else []),
        Cell("" if table.synthetic else _reported(row.method, row.backbone, table.task)),
        Cell(str(len(row.records)), len(row.records)),
        *map(Cell, _cost(row)),
        Cell(date, date),
    ]
    records = tuple((seed_label(record.seed), record) for record in row.records)
    return FormattedRow(row.backbone, tuple(cells), records)


def _format_failure(record: Record, width: int) -> FormattedRow:
    texts = [
        "n/a",
        method_label(record.method, record.variant),
        record.backbone or "n/a",
        record.preset or "n/a",
        failure_text(record),
    ]
    texts += [""] * (width - len(texts) - 2) + [record.created[:10]]
    return FormattedRow(record.backbone or "", tuple(map(Cell, texts)), (("record", record),))


def failure_text(record: Record) -> str:
    """The cell of a failed run, with the reason."""
    return f"n/a (failed: {record.reason or 'no reason given'})"


def method_label(method: str, variant: str | None) -> str:
    """Method and variant."""
    return f"{method} ({variant})" if variant else method


def speed_note(table: Table) -> str:
    """Explanation of speeds with a device, empty if a table has none."""
    if not any(row.measurement for row in table.rows):
        return ""
    return (
        " Clips/s and GiB with a device are training speed and memory measured by avsb bench (in bench/); "
        "all others are those of the run."
    )


def _score_cell(row: Row, table: Table, protocol: str, metric: str) -> Cell:
    """Mean and standard deviation over seeds, or a single score with its interval."""
    values = row.values(protocol, metric, table.part)
    if not values:
        reason = "not defined on this split" if protocol == table.protocol else "not scored"
        return Cell(f"n/a ({reason})", -1.0)
    entry = row.records[0].score(protocol, table.part)
    interval = entry.intervals.get(metric) if entry is not None else None
    text = mean_sd(values)
    if len(values) == 1 and interval is not None:
        text += f" ({percent(interval[0])}-{percent(interval[1])})"
    return Cell(text, statistics.fmean(values))


def _gain_cell(row: Row) -> Cell:
    """Mean and standard deviation of the audio gains over seeds, or a single one with its interval."""
    if len(row.gains) < len(row.records):
        return Cell("n/a (run avsb robustness)", -1.0)
    values = [gain.value for gain in row.gains]
    text = mean_sd(values)
    if len(values) == 1 and (interval := row.gains[0].interval) is not None:
        text += f" ({percent(interval[0])} to {percent(interval[1])})"
    return Cell(text, statistics.fmean(values))


@functools.cache
def _reported(method: str, backbone: str, task: str) -> str:
    """Reported values of a method with a backbone on a task."""
    found: dict[str, list[str]] = {}
    for value in reported_values():
        if value.main and (value.method, value.backbone, value.task) == (method, backbone, task):
            source = ", ".join(filter(None, (f"{value.paper} {value.table}", value.setting)))
            found.setdefault(source, []).append(f"{value.metric} {value.value:g}")
    return "; ".join(f"{', '.join(metrics)} ({source})" for source, metrics in found.items())


def _cost(row: Row) -> list[str]:
    """M parameters, GMACs per clip, training clips per second and peak memory in GiB.

    Speed and memory are those of the row's measurement, with its device, or else those of the newest run.
    """
    record, measurement = row.newest, row.measurement
    cost = record.cost or (measurement.cost if measurement else None)
    speed = record.training.clips_per_second if record.training else None
    memory = record.training.memory_gib if record.training else None
    speed_device = memory_device = ""
    if measurement:
        speed, memory = measurement.training.clips_per_second.median, measurement.memory_gib
        device = measurement.device.name
        speed_device = f" ({device}, {measurement.precision}, batch {measurement.batch.clips})"
        memory_device = f" ({device})"
    return [
        f"{cost.parameters / 1e6:.1f}" if cost else "n/a",
        f"{cost.gmacs:.1f}" if cost else "n/a",
        f"{speed:.2f}{speed_device}" if speed else "n/a",
        f"{memory:.1f}{memory_device}" if memory else "n/a",
    ]
