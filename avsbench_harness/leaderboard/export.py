"""Leaderboard tables as CSV, LaTeX and JSON."""

from __future__ import annotations

from collections.abc import Iterable

from avsbench_harness.errors import one_line
from avsbench_harness.leaderboard.cells import method_label
from avsbench_harness.leaderboard.formatting import csv_text, mean_sd, statistics_of
from avsbench_harness.leaderboard.tables import Row, Table


def to_csv(tables: Iterable[Table]) -> str:
    """CSV with one row per table row and metric; values in [0, 1]."""
    return csv_text(
        [
            {
                "task": table.task,
                "data": table.data,
                "synthetic": table.synthetic,
                "split": table.split,
                "part": table.part,
                "solution": table.solution,
                "rank": row.rank,
                "method": row.method,
                "variant": row.variant,
                "backbone": row.backbone,
                "recipe": row.recipe,
                "protocol": protocol,
                "metric": metric,
                **statistics_of(row.values(protocol, metric, table.part)),
                "records": " ".join(record.run_id for record in row.records),
            }
            for table in tables
            for row in table.rows
            for protocol, metric, _ in table.columns
        ]
    )


def to_latex(tables: Iterable[Table]) -> str:
    """One ``tabular`` environment per table, with the rules of the booktabs package."""
    return "\n".join(_latex(table) for table in tables)


def _latex(table: Table) -> str:
    marker = " (SYNTHETIC)" if table.synthetic else ""
    headings = ["", "method", "backbone", "recipe", *(heading for _, _, heading in table.columns)]
    rows = [
        [
            str(row.rank),
            method_label(row.method, row.variant),
            row.backbone or "n/a",
            row.recipe,
            *(_score(row, table, protocol, metric) for protocol, metric, _ in table.columns),
        ]
        for row in table.rows
    ]
    return "\n".join(
        [
            f"% {table.task}, {one_line(table.data)}, {table.split}{marker}; protocol {table.protocol}; "
            f"ground truth {table.solution[:12]}",
            r"\begin{tabular}{rlll" + "r" * len(table.columns) + "}",
            r"\toprule",
            _latex_line(headings),
            r"\midrule",
            *map(_latex_line, rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _latex_line(cells: Iterable[str]) -> str:
    return " & ".join(map(_escape_latex, cells)) + r" \\"


def _score(row: Row, table: Table, protocol: str, metric: str) -> str:
    values = row.values(protocol, metric, table.part)
    return mean_sd(values) if values else "n/a"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "β²": r"$\beta^2$",
    "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def _escape_latex(text: str) -> str:
    """Escape text for LaTeX."""
    line = one_line(text).replace("β²", "\0")
    return "".join(_LATEX.get(mark, mark) for mark in line).replace("\0", _LATEX["β²"])


def to_json(tables: Iterable[Table]) -> list[dict[str, object]]:
    """The tables as JSON values."""
    return [
        {
            "task": table.task,
            "data": table.data,
            "split": table.split,
            "part": table.part,
            "solution": table.solution,
            "synthetic": table.synthetic,
            "protocol": table.protocol,
            "rows": [_row_json(row, table) for row in table.rows],
            "failed": [{"run": record.run_id, "reason": record.reason} for record in table.failed],
        }
        for table in tables
    ]


def _row_json(row: Row, table: Table) -> dict[str, object]:
    cost = row.newest.cost
    return {
        "rank": row.rank,
        "method": row.method,
        "variant": row.variant,
        "backbone": row.backbone,
        "recipe": row.recipe,
        "seeds": len(row.records),
        "metrics": {
            heading: row.values(protocol, metric, table.part) for protocol, metric, heading in table.columns
        },
        "cost": cost.model_dump(mode="json") if cost else None,
        "measurement": row.measurement.name if row.measurement else None,
        "records": [record.run_id for record in row.records],
    }
