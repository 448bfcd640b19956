"""``avsb ablate`` and ``avsb plot ablation``."""

from __future__ import annotations

from pathlib import Path

import pytest

from avsbench_harness.results.record import read_record


def test_ablations_are_listed_and_planned(avsb, tiny: str, quick_options: list[object]) -> None:
    listed = avsb("ablate", "list", "--json").json
    assert "combo/table5" in listed
    plan = avsb("ablate", "run", f"{tiny}/table1", *quick_options, "--dry-run", "--json")
    assert [row["row"] for row in plan.json] == ["narrow", "default", "wide | <b>"]
    wrong = avsb("ablate", "run", "combo/table99")
    assert wrong.code == 2
    assert "Unknown ablation of combo 'table99'" in wrong.err


def test_names_are_not_truncated_on_a_narrow_terminal(
    avsb, monkeypatch: pytest.MonkeyPatch, quick_options: list[object]
) -> None:
    """Tables of 80 columns show names and run ids in full, and only the first line of a reason."""
    monkeypatch.setenv("COLUMNS", "80")
    listed = avsb("ablate", "list").out
    assert all(f" avsegformer/table2{letter} " in listed for letter in "abcd")
    plan = avsb("ablate", "run", "catr/table3", "--task", "s4", *quick_options, "--dry-run").out
    runs = [line.split("│")[2].strip() for line in plan.splitlines() if line.startswith("│")]
    assert "s4-catr-pvt-s0-" in "".join(runs)
    assert "…" not in "".join(runs)
    impossible = avsb("ablate", "run", "catr/table3", *quick_options, "--dry-run")
    assert (impossible.code, impossible.out) == (4, "")
    assert impossible.err.count("contains no MS3") == 1


@pytest.mark.slow
def test_an_ablation_end_to_end(avsb, tiny: str, tmp_path: Path, quick_options: list[object]) -> None:
    options = [f"{tiny}/table1", *quick_options, "--seeds", "2", "--jobs", "2"]
    done = avsb("ablate", "run", *options)
    assert done.code == 0, done.err
    assert "6 of 6 runs done, 0 failed" in done.out
    page = (tmp_path / "results" / "ablations" / "tiny-table1.md").read_text()
    assert page.count("| 2 |") == 3
    assert "n/a (not run)" not in page
    records = sorted((tmp_path / "results").glob("*.json"))
    before = [path.stat().st_mtime_ns for path in records]
    assert avsb("ablate", "run", *options).code == 0
    assert [path.stat().st_mtime_ns for path in records] == before
    table = avsb("ablate", "table", f"{tiny}/table1", "--results", tmp_path / "results")
    assert table.out == page
    figure = tmp_path / "bars.svg"
    plot = avsb("plot", "ablation", f"{tiny}/table1", "--results", tmp_path / "results", "--out", figure)
    assert plot.code == 0, plot.err
    assert "<svg" in figure.read_text()
    assert avsb("results", "validate", "--results", tmp_path / "results").code == 0
    assert avsb("leaderboard", "--results", tmp_path / "results", "--check").code == 0
    assert "estimated time" not in avsb("ablate", "run", *options, "--dry-run").out
    failed = read_record(records[0]).model_copy(
        update={"status": "failed", "reason": "no power", "scores": []}
    )
    records[0].write_text(failed.model_dump_json())
    # The same command tries a failed run again, so its time counts.
    assert "estimated time of the remaining runs" in avsb("ablate", "run", *options, "--dry-run").out
