"""The pages of the committed records, byte by byte: a change in a table is to be seen and meant."""

from __future__ import annotations

import shutil
from pathlib import Path

from avsbench_harness.launch.ablate import write_tables
from avsbench_harness.results.page import render
from avsbench_harness.results.record import Record, read_records
from avsbench_harness.results.validate import faults


def test_the_records_are_whole(data: Path) -> None:
    assert faults(data / "records") == (13, [])


def test_the_leaderboard(data: Path) -> None:
    assert render(data / "records") == (data / "records" / "LEADERBOARD.md").read_text(encoding="utf-8")


def test_the_ablation_table(data: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(data / "records", results, ignore=shutil.ignore_patterns("ablations"))
    for path in write_tables("combo/table6", results):
        assert path.read_bytes() == (data / "records" / "ablations" / path.name).read_bytes(), path.name


def test_records_in_another_order_make_the_same_page(data: Path) -> None:
    from avsbench_harness.results.page import to_markdown

    records = read_records(data / "records")
    assert to_markdown(records[::-1], data / "records") == to_markdown(records, data / "records")


def test_a_record_survives_being_written_and_read(data: Path) -> None:
    for record in read_records(data / "records"):
        assert Record.model_validate_json(record.model_dump_json()) == record
