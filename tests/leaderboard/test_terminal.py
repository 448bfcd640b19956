"""The leaderboard in the terminal."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from avsbench_harness.leaderboard.tables import build_tables
from avsbench_harness.leaderboard.terminal import terminal_tables
from avsbench_harness.results.folder import read_results

from ..results.records import make_record


def shown(tables: object, **options: object) -> str:
    file = io.StringIO()
    console = Console(file=file, width=80, markup=False)
    for one in terminal_tables(tables, **options):  # type: ignore[arg-type]
        console.print(one)
    return file.getvalue()


def test_scores_have_one_decimal_and_ids_stay_whole_at_80_columns() -> None:
    long = "s4-" + "combo" * 10 + "-0123456789"
    text = shown(build_tables([make_record(long, 0.81234)]))
    assert long in text
    assert "81.2 (1.0)" in text
    assert "90.0" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "reported" not in text


def test_reported_values_are_shown_on_request() -> None:
    text = shown([], reported=True, backbone="r50")
    assert "There are no scored runs yet" in text
    (line,) = [one for one in text.splitlines() if one.strip().startswith("combo") and "81.7" in one]
    assert "90.1" in line
    assert " pvt" not in text


def test_failed_runs_are_listed_with_the_reason(data: Path) -> None:
    results = read_results(data / "records")
    text = shown(build_tables(results.records, results))
    assert "s4-tiny-r50-s0-8f7369b6b7\n  n/a (failed: The loss is not finite" in text
