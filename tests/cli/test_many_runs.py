from __future__ import annotations

import json
from pathlib import Path

import pytest

from avsbench_harness.results.record import read_record


def short(tiny: str, real_s4: Path, out: Path) -> list[object]:
    return ["--data", real_s4, "--preset", "smoke", "--set", "iterations=1", "--out", out, "--device", "cpu"]


def test_a_sweep_shows_its_plan(avsb, tiny: str, real_s4: Path, tmp_path: Path) -> None:
    options = [
        "--method",
        tiny,
        "--backbone",
        "r50,swin_t",
        "--seeds",
        "0..1",
        *short(tiny, real_s4, tmp_path),
    ]
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
def test_wrong_sweeps_say_why(avsb, options: list[str], message: str) -> None:
    wrong = avsb("sweep", *options)
    assert wrong.code == 2
    assert message in wrong.err


def test_a_file_and_options_exclude_each_other(avsb, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("method: combo\n")
    wrong = avsb("sweep", path, "--seeds", "0..2")
    assert wrong.code == 2
    assert "leave out --seeds" in wrong.err


def test_ablations_are_listed_and_planned(avsb, tiny: str, real_s4: Path, tmp_path: Path) -> None:
    listed = avsb("ablate", "list", "--json").json
    assert "combo/table5" in listed
    plan = avsb("ablate", "run", f"{tiny}/table1", *short(tiny, real_s4, tmp_path), "--dry-run", "--json")
    assert [row["row"] for row in plan.json] == ["narrow", "default", "wide | <b>"]
    wrong = avsb("ablate", "run", "combo/table99")
    assert wrong.code == 2
    assert "Unknown ablation of combo 'table99'" in wrong.err


def test_names_are_whole_on_a_narrow_terminal(
    avsb, real_s4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a user types or looks for is not cut in the tables of 80 columns; a reason is its first line."""
    monkeypatch.setenv("COLUMNS", "80")
    listed = avsb("ablate", "list").out
    assert all(f" avsegformer/table2{letter} " in listed for letter in "abcd")
    plan = avsb(
        "ablate", "run", "catr/table3", "--task", "s4", *short("", real_s4, tmp_path), "--dry-run"
    ).out
    runs = [line.split("│")[2].strip() for line in plan.splitlines() if line.startswith("│")]
    assert "s4-catr-pvt-s0-" in "".join(runs)
    assert "…" not in "".join(runs)
    impossible = avsb("ablate", "run", "catr/table3", *short("", real_s4, tmp_path), "--dry-run")
    assert impossible.code == 1
    missing = impossible.out
    assert "holds no MS3" in " ".join(
        line.split("│")[4].strip() for line in missing.splitlines() if "│" in line
    )
    assert "visual_frames" not in missing


@pytest.mark.slow
def test_an_ablation_end_to_end(avsb, tiny: str, real_s4: Path, tmp_path: Path) -> None:
    options = [f"{tiny}/table1", *short(tiny, real_s4, tmp_path), "--seeds", "2", "--jobs", "2"]
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
    assert "estimated time of what is left" in avsb("ablate", "run", *options, "--dry-run").out


def test_a_run_is_reproduced_to_the_bit(avsb, tiny: str, real_s4: Path, tmp_path: Path) -> None:
    ran = avsb(
        "run", "--method", tiny, *short(tiny, real_s4, tmp_path), "--set", "optimizer.lr=0.02", "--json"
    )
    assert ran.code == 0, ran.err
    record = tmp_path / "results" / f"{ran.json['run_id']}.json"
    given = ("--data", real_s4, "--method", tiny)
    again = avsb("reproduce", record, "--out", tmp_path / "again", *given, "--json")
    assert again.code == 0, again.err
    assert {metric["verdict"] for metric in again.json["metrics"]} == {"same bits"}
    assert again.json["differences"] == []
    same = avsb("reproduce", record, "--out", tmp_path, *given)
    assert same.code == 2
    assert "name another folder" in same.err

    changed = json.loads(record.read_text())
    changed["scores"][0]["metrics"]["J"] += 0.1
    changed["scores"][0]["metrics"]["F"] += 1e-6
    changed["environment"]["packages"]["torch"] = "0.1"
    other = tmp_path / "other" / record.name
    other.parent.mkdir()
    other.write_text(json.dumps(changed))
    again = avsb("reproduce", other, "--out", tmp_path / "again", *given, "--json")
    assert again.code == 1
    words = {metric["metric"]: metric["verdict"] for metric in again.json["metrics"]}
    assert (words["J"], words["F"]) == ("different", "within tolerance")
    assert any(line.startswith("torch: 0.1 then") for line in again.json["differences"])


def test_records_are_validated(avsb, tiny: str, real_s4: Path, tmp_path: Path) -> None:
    run = avsb("run", "--method", tiny, *short(tiny, real_s4, tmp_path), "--json").json["run_id"]
    results = tmp_path / "results"
    assert avsb("results", "validate", "--results", results).out == "1 records, 0 measurements, 0 faults\n"
    path = results / f"{run}.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    wrong = avsb("results", "validate", "--results", results)
    assert wrong.code == 1
    assert "spec_hash is not the hash of the spec" in wrong.out
    assert avsb("results", "schema").json["title"] == "Record"
    assert avsb("results", "validate", "--results", tmp_path / "none").code == 4


def test_the_leaderboard_in_other_forms(avsb, tiny: str, real_s4: Path, tmp_path: Path) -> None:
    assert avsb("run", "--method", tiny, *short(tiny, real_s4, tmp_path)).code == 0
    results = ("--results", tmp_path / "results")
    assert avsb("leaderboard", *results, "--format", "csv").out.startswith("task,data,")
    assert r"\begin{tabular}" in avsb("leaderboard", *results, "--format", "latex").out
    assert avsb("leaderboard", *results, "--format", "json").json[0]["rows"][0]["method"] == "tiny"
    assert "| tiny" not in avsb("leaderboard", *results, "--backbone", "pvt").out
    assert avsb("leaderboard", *results, "--format", "word").code == 2
    assert avsb("leaderboard", *results, "--check").code == 0
    (tmp_path / "results" / "LEADERBOARD.md").write_text("old")
    stale = avsb("leaderboard", *results, "--check")
    assert stale.code == 1
    assert "update it with `avsb leaderboard`" in stale.err
    site = avsb("leaderboard", *results, "--html", tmp_path / "site", "--data", real_s4)
    assert site.code == 0
    assert (tmp_path / "site" / "index.html").is_file()
