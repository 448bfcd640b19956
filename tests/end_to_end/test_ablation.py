"""An ablation table of a paper from the command to the page, with narrow models."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

SMALL = (
    "iterations=1", "options.dim=32", "options.encoder_layers=1", "options.decoder_layers=1",
    "options.ffn_dim=32", "options.mask_mlp_dim=8",
)  # fmt: skip


@pytest.mark.slow
def test_the_number_of_queries(avsb, real_s4: Path, tmp_path: Path) -> None:
    """avsegformer/table2a with PVTv2: four rows with measured and reported values."""
    changes = [part for change in SMALL for part in ("--set", change)]
    options = ["--task", "s4", "--data", real_s4, "--preset", "smoke", "--out", tmp_path, "--device", "cpu"]
    plan = avsb("ablate", "run", "avsegformer/table2a", *options, *changes, "--dry-run", "--json")
    assert [row["row"] for row in plan.json] == ["1", "100", "200", "300"]
    assert len({row["hash"] for row in plan.json}) == 4

    done = avsb("ablate", "run", "avsegformer/table2a", *options, *changes, "--jobs", "2")
    assert done.code == 0, done.out + done.err
    assert "4 of 4 runs done, 0 failed" in done.out
    page = (tmp_path / "results" / "ablations" / "avsegformer-table2a.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert [row.split(" | ")[0] for row in rows] == ["| 1", "| 100", "| 200", "| 300"]
    assert " | full | 82 | - | " in rows[3]
    assert " | 81.1 | " in rows[0]
    table = pd.read_csv(tmp_path / "results" / "ablations" / "avsegformer-table2a.csv")
    assert list(table[table["metric"] == "F"]["reported"]) == [88.6, 88.9, 89.6, 89.9]
    assert table["mean"].between(0, 1).all()
    assert set(table["direction"].dropna()) <= {"agrees", "differs", "not significant"}
