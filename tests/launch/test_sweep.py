from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.launch.grid import Grid
from avsbench_harness.launch.request import Request
from avsbench_harness.launch.status import grid_status, is_done
from avsbench_harness.launch.sweep import cells, distinct


def test_a_grid_is_every_combination_with_reasons_for_invalid_ones(grid, tmp_path: Path) -> None:
    planned = cells(
        grid(
            backbone=["r50", "swin_t"],
            task=["s4", "avss"],
            seeds="0..1",
            rows=[{"name": "a"}, {"name": "b", "set": {"options.width": 4}}],
        ),
        tmp_path,
        "cpu",
    )
    assert len(planned) == 16
    assert len(distinct(planned)) == 8
    bad = [cell for cell in planned if cell.run is None]
    assert len(bad) == 8
    assert all("avss" in cell.name and cell.problem for cell in bad)  # the small real set is of s4
    widths = {cell.run.recipe.options.get("width") for cell in planned if cell.run and cell.row == "b"}
    assert widths == {4}


def test_a_grid_of_ablation_tables_has_their_rows(tiny: str, real_s4: Path, tmp_path: Path) -> None:
    text = {"ablations": f"{tiny}/table1", "seeds": "0..1", "data": str(real_s4), "preset": "smoke",
            "pretrained": False}  # fmt: skip
    planned = cells(Grid.parse({**text, "set": {"iterations": 1}}, "grid"), tmp_path, "cpu")
    widths = [(cell.row, cell.run.recipe.options.get("width")) for cell in planned if cell.run]
    assert widths[::2] == widths[1::2] == [("narrow", 2), ("default", None), ("wide | <b>", 12)]
    assert [cell.request.seed for cell in planned] == [0, 1] * 3
    assert {cell.run.recipe.iterations for cell in planned if cell.run} == {1}
    assert {cell.request.pretrained for cell in planned} == {False}


def test_repeated_runs_are_planned_once(grid, tmp_path: Path) -> None:
    planned = cells(grid(rows=[{"name": "a"}, {"name": "b"}]), tmp_path, "cpu")
    assert [cell.row for cell in planned] == ["a", "b"]
    assert len(distinct(planned)) == 1


def test_a_request_round_trips_through_its_options(
    tiny: str, real_s4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every field is restored from the options, so that a sweep starts the runs that it planned."""
    from avsbench_harness import cli

    request = Request(
        method=tiny, backbone="swin_t", task="s4", variant="released", data=real_s4, preset="smoke",
        assignments=("options.width=4", 'source="x y"'), pretrained=False, seed=3, out=Path("there"),
        device="cpu", workers=0,
    )  # fmt: skip
    asked: list[Request] = []

    def note(request: Request):
        asked.append(request)
        raise UsageError("enough")

    monkeypatch.setattr("avsbench_harness.launch.request.plan", note)
    monkeypatch.setattr("sys.argv", ["avsb", "run", *request.arguments()])
    with pytest.raises(SystemExit):
        cli.main()
    assert asked == [request]
    unset = [field.name for field in dataclasses.fields(Request) if getattr(request, field.name) is None]
    # A sweep has no recorded recipe: that of a run, which other commands read from its spec.
    assert set(unset) <= {"recipe", "weights", "init", "recorded"}


def test_missing_data_are_reported_once(grid, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="nowhere does not exist"):
        cells(grid(data=tmp_path / "nowhere", seeds="0..5"), tmp_path)
    with pytest.raises(MissingDataError, match="contains no S4"):
        cells(grid(data=tmp_path, seeds="0..5"), tmp_path)


@pytest.mark.parametrize("content", ["{", "[1]", '{"format": 1}', "[" * 100_000])
def test_one_damaged_record_does_not_stop_the_status(grid, tmp_path: Path, content: str) -> None:
    planned = cells(grid(seeds=[0, 1]), tmp_path)
    bad = planned[0].run
    assert bad is not None
    bad.record_file.parent.mkdir()
    bad.record_file.write_text(content)
    states = {outcome.name: outcome for outcome in grid_status(planned)}
    assert [outcome.state for outcome in states.values()] == ["failed", "pending"]
    assert bad.record_file.name in states[bad.id].reason
    assert not is_done(bad)
