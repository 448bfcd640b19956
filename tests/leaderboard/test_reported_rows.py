"""Reported values as rows with sources."""

from __future__ import annotations

from avsbench_harness.leaderboard.reported_rows import reported_rows
from avsbench_harness.results.reported import ReportedValue, reported_values


def value(paper: str, backbone: str, metric: str, number: float, **changes: object) -> ReportedValue:
    facts = {"table": "Table 1", "row": "m", "method": "m", "setting": None, "task": "s4", "main": True}
    return ReportedValue(
        paper=paper, backbone=backbone, metric=metric, value=number, protocol=None, **{**facts, **changes}
    )  # type: ignore[arg-type]


def test_values_equal_to_one_decimal_are_one_row_in_spite_of_other_backbones() -> None:
    rows = reported_rows(
        "s4", [value("A", "r50", "J", 61.6), value("B", "swin_t", "mIoU", 61.59), value("C", "pvt", "J", 70)]
    )
    assert [(row.backbones, len(row.sources)) for row in rows] == [(("pvt",), 1), (("r50", "swin_t"), 2)]
    assert rows[1].differ == ()


def test_the_own_paper_decides_and_differences_are_marked() -> None:
    printed = [value("A", "r50", "J", 71), value("B", "r50", "J", 71), value("M", "r50", "J", 70)]
    (row,) = reported_rows("s4", printed)
    assert (row.values, row.differ, row.sources[0].paper) == ({"J": 70}, ("J",), "M")
    (row,) = reported_rows("s4", [*printed[:2], value("C", "r50", "J", 69)])
    assert row.values == {"J": 71}


def test_settings_and_other_tables_are_not_mixed() -> None:
    rows = reported_rows(
        "s4",
        [
            value("A", "r50", "J", 71),
            value("A", "r50", "J", 72, setting="more labels", row="m*"),
            value("A", "r50", "J", 73, main=False),
            value("A", "r50", "J", 74, task="ms3"),
        ],
    )
    assert [(row.setting, row.values["J"]) for row in rows] == [("", 71), ("more labels", 72)]


def test_papers_citing_one_method_share_its_row() -> None:
    """Tables 1 of AVSegFormer (37.94), CATR, COMBO and QDFormer (37.9) cite LVS; F is 51.9 in QDFormer."""
    (row,) = [row for row in reported_rows("s4", reported_values()) if row.method == "LVS"]
    assert {source.paper for source in row.sources} == {"AVSegFormer", "CATR", "COMBO", "QDFormer"}
    assert row.values["F"] == 51.0
    assert row.differ == ("F",)
