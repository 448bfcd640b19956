"""Measured ablation tables from records, and their Markdown and CSV."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from avsbench_harness.ablation.definition import get_ablation
from avsbench_harness.ablation.export import write_tables
from avsbench_harness.ablation.tables import MeasuredRow, MeasuredTable, direction
from avsbench_harness.launch.ablation_grid import AblationRequest, ablation_grid
from avsbench_harness.launch.records import record_failure
from avsbench_harness.launch.sweep import cells
from avsbench_harness.results.paired_bootstrap import PairedDifference
from avsbench_harness.results.record import (
    CostEntry,
    DataEntry,
    EnvironmentEntry,
    Record,
    ScoreEntry,
    write_record,
)
from avsbench_harness.scoring import score_object


def record_of(cell, flipped: int, folder: Path, **changes) -> Record:
    """Write a record of the cell's run with the scores of 20 clips, ``flipped`` of them inverted."""
    masks = np.zeros((20, 1, 8, 8), np.uint8)
    masks[:, :, :4] = 1
    codes = masks * 255
    codes[:flipped] = 255 - codes[:flipped]
    scores = score_object(codes, masks)
    spec = cell.run.spec
    record = Record(
        run_id=cell.run.id, created="2026-01-02T03:04:05Z", method=spec.method, variant=spec.variant,
        backbone=spec.backbone, preset=spec.preset, task=spec.task, seed=spec.seed,
        data=DataEntry(
            name=spec.data.name, split="test", synthetic=spec.data.synthetic, solution="f" * 64,
            fingerprint=spec.data.fingerprint,
        ),
        scores=[
            ScoreEntry(protocol=scores.protocol, main=list(scores.main), metrics=scores.metrics,
                       intervals=scores.intervals, clips=scores.n)
        ],
        submission_sha256="0" * 64,
        environment=EnvironmentEntry(
            harness="0", python="3", platform="p", packages={}, device="cpu", threads=1, git=None
        ),
        spec=spec.model_dump(mode="json"), spec_hash=spec.hash,
    )  # fmt: skip
    record = record.model_copy(update=changes)
    write_record(folder / f"{cell.run.id}.json", record, scores)
    return record


def test_rows_are_matched_by_recipe(tiny: str, real_s4: Path, tmp_path: Path) -> None:
    """Other records in the folder are ignored; overrides of all rows are allowed."""
    name = f"{tiny}/table1"
    results = tmp_path / "results"
    request = AblationRequest(data=real_s4, preset="smoke", seeds=range(2), overrides={"iterations": 1})
    planned = cells(ablation_grid(name, request), tmp_path, "cpu")
    flipped = {"narrow": 9, "default": 1, "wide | <b>": 2}
    for cell in planned:
        record_of(cell, flipped[cell.row] + cell.request.seed, results)
    other = cells(
        ablation_grid(name, dataclasses.replace(request, overrides={"iterations": 2})), tmp_path, "cpu"
    )
    record_of(other[0], 0, results)  # another recipe without its full method
    page, csv = write_tables(name, results)
    text = page.read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert page == results / "ablations" / "tiny-table1.md"
    assert len(rows) == 3
    # 9 and 10 of 20 clips inverted: J is 0.55 and 0.5.
    assert rows[0].startswith("| narrow | 52.5 ± 3.5 | -40.0 (-")
    assert "| n/a (not in the paper) | - |" in rows[0]
    assert rows[1].startswith("| default | 92.5 ± 3.5 | full |")
    assert rows[2].startswith(r"| wide \| \<b\> | 87.5 ± 3.5 |")
    assert "| 2 | [s0](../" in rows[0]
    assert write_tables(name, results)[0].read_text() == text
    frame = pd.read_csv(csv)
    narrow = frame[(frame["row"] == "narrow") & (frame["metric"] == "J")].iloc[0]
    assert narrow["mean"] == pytest.approx(0.525)
    assert narrow["difference"] == pytest.approx(-0.4)
    assert narrow["low"] < -0.4 < narrow["high"] < 0
    assert narrow["seeds"] == 2


def test_tables_of_different_recipes_show_hashes(tiny: str, real_s4: Path, tmp_path: Path) -> None:
    name, results = f"{tiny}/table1", tmp_path / "results"
    for steps in (1, 2):
        request = AblationRequest(data=real_s4, preset="smoke", overrides={"iterations": steps})
        for cell in cells(ablation_grid(name, request), tmp_path, "cpu"):
            record_of(cell, steps, results)
    page, _ = write_tables(name, results)
    recipes = [line for line in page.read_text().splitlines() if line.startswith("Recipe `smoke ")]
    assert len(set(recipes)) == 2
    assert all("(changed: iterations=" in line for line in recipes)


def test_model_sizes_measured_and_reported(real_s4: Path, tmp_path: Path) -> None:
    """combo/table4 has a column with the parameters of both rows."""
    request = AblationRequest(data=real_s4, preset="smoke", overrides={"maskige": "felzenszwalb"})
    sizes = {"w. shared weights": 130_000_000, "w/o shared weights": 160_000_000}
    for cell in cells(ablation_grid("combo/table4", request), tmp_path, "cpu", check=False):
        record_of(cell, 1, tmp_path / "results", cost=CostEntry(parameters=sizes[cell.row], gmacs=1.0))
    page = write_tables("combo/table4", tmp_path / "results")[0].read_text()
    assert "| M parameters measured | M parameters reported |" in page
    assert "| 130.0 | 135.5 | 1 | [s0]" in page
    assert "| 160.0 | 158.9 | 1 | [s0]" in page


def test_failed_rows_have_a_reason(tiny: str, real_s4: Path, tmp_path: Path) -> None:
    name, results = f"{tiny}/table1", tmp_path / "results"
    results.mkdir()
    for cell in cells(ablation_grid(name, AblationRequest(data=real_s4, preset="smoke")), tmp_path, "cpu"):
        record_failure(cell.run, "out of | memory")
    page = write_tables(name, results)[0].read_text()
    assert r"| default | n/a (failed: out of \| memory) | full |" in page
    assert "ground truth `n/a`" in page


def test_empty_table(tiny: str, tmp_path: Path) -> None:
    page, _ = write_tables(f"{tiny}/table1", tmp_path)
    assert "create them with `avsb ablate run tiny/table1`" in page.read_text()


def test_golden_table(data: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(data / "records", results, ignore=shutil.ignore_patterns("ablations"))
    for path in write_tables("combo/table6", results):
        assert path.read_bytes() == (data / "records" / "ablations" / path.name).read_bytes(), path.name


def test_direction_of_measured_and_reported_differences() -> None:
    """combo/table5, S4, r50: the full method has the highest reported J."""
    _, ablation = get_ablation("combo/table5")
    table = MeasuredTable("s4", "r50", "full", "avsbench", False, "f" * 64, ())
    row = next(row for row in ablation.rows if row.name == "w/o fusion")
    for difference, expected in (
        (PairedDifference(-0.02, (-0.03, -0.01)), "agrees"),
        (PairedDifference(0.02, (0.01, 0.03)), "differs"),
        (PairedDifference(0.02, (-0.01, 0.03)), "not significant"),
    ):
        assert direction(ablation, table, MeasuredRow(row, (), {"J": difference}), "J") == expected
    assert direction(ablation, table, MeasuredRow(row, (), {"J": None}), "J") == ""


def test_equal_reported_values_have_no_direction() -> None:
    """combo/table7, S4: F is 90.1 with weights 5 and 10."""
    _, ablation = get_ablation("combo/table7")
    table = MeasuredTable("s4", "r50", "full", "avsbench", False, "f" * 64, ())
    row = next(row for row in ablation.rows_of("s4") if row.name == "5")
    measured = MeasuredRow(row, (), {"F": PairedDifference(0.02, (0.01, 0.03))})
    assert direction(ablation, table, measured, "F") == "none in the paper"
