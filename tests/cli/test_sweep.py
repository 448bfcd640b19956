"""``avsb sweep``."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_dry_run_and_status(avsb, tiny: str, quick_options: list[object]) -> None:
    options = ["--method", tiny, "--backbone", "r50,swin_t", "--seeds", "0..1", *quick_options]
    plan = avsb("sweep", *options, "--dry-run", "--json")
    assert plan.code == 0
    assert len(plan.json) == 4
    assert {row["state"] for row in plan.json} == {"pending"}
    assert all(row["run"].endswith(row["hash"][:10]) for row in plan.json)
    assert "n/a (no record" in avsb("sweep", *options, "--dry-run").out
    assert "4 pending, 0 running, 0 done, 0 failed" in avsb("sweep", *options, "--status").out
    assert avsb("sweep", "status", *options).out == avsb("sweep", *options, "--status").out
    assert [row["progress"] for row in avsb("sweep", "status", *options, "--json").json] == [None] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "needs a YAML file or --method"),
        (["--method", "combo", "--seeds", "2..1"], "0..2 or 0,1,2"),
        (["--method", "combo", "--set", "lr"], "--set takes key=value"),
        (["none.yaml"], "There is no file none.yaml"),
        (["status", "none.yaml"], "There is no file none.yaml"),
        (["one.yaml", "two.yaml"], "takes one file with a grid"),
    ],
)
def test_invalid_sweeps_are_usage_errors(avsb, options: list[str], message: str) -> None:
    wrong = avsb("sweep", *options)
    assert wrong.code == 2
    assert message in wrong.err


def test_a_grid_file_excludes_options(avsb, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("method: combo\n")
    wrong = avsb("sweep", path, "--seeds", "0..2")
    assert wrong.code == 2
    assert "leave out --seeds" in wrong.err
