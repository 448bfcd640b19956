"""The pages of the committed records, byte by byte: a change in a table is to be seen and meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from avsbench_harness.launch.ablate import write_tables
from avsbench_harness.leaderboard.page import render
from avsbench_harness.leaderboard.validate import faults
from avsbench_harness.recipe.resolve import merge
from avsbench_harness.results.record import Record, clips_file, read_records


def test_the_records_are_whole(data: Path) -> None:
    assert faults(data / "records") == (13, [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "catr"}, "method is 'catr', and the spec says 'combo'"),
        ({"seed": 9}, "seed is 9, and the spec says 0"),
        ({"data": {"synthetic": False}}, "data.synthetic is False, and the spec says True"),
        ({"spec": {"seed": 9}}, "the hash of the spec is not that of the spec"),
        ({"run_id": "s4-combo-r50-s0-0000000000"}, "does not end in the hash of the spec"),
    ],
)
def test_a_record_says_what_its_spec_says(data: Path, tmp_path: Path, changes, message: str) -> None:
    name = "s4-combo-r50-s0-6cfafdc24d"
    values = merge(json.loads((data / "records" / f"{name}.json").read_text()), changes)
    path = tmp_path / f"{values['run_id']}.json"
    path.write_text(json.dumps(values))
    shutil.copy(data / "records" / f"{name}.clips.csv", clips_file(path))
    assert message in faults(tmp_path)[1][0]


def test_the_leaderboard(data: Path) -> None:
    assert render(data / "records") == (data / "records" / "LEADERBOARD.md").read_text(encoding="utf-8")


def test_the_ablation_table(data: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(data / "records", results, ignore=shutil.ignore_patterns("ablations"))
    for path in write_tables("combo/table6", results):
        assert path.read_bytes() == (data / "records" / "ablations" / path.name).read_bytes(), path.name


def test_records_in_another_order_make_the_same_page(data: Path) -> None:
    from avsbench_harness.leaderboard.page import to_markdown

    records = read_records(data / "records")
    assert to_markdown(records[::-1], data / "records") == to_markdown(records, data / "records")


def test_a_record_survives_being_written_and_read(data: Path) -> None:
    for record in read_records(data / "records"):
        assert Record.model_validate_json(record.model_dump_json()) == record
