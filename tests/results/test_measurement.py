"""Measurements of speed and memory, and their display in leaderboards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from avsbench_harness.errors import UsageError
from avsbench_harness.leaderboard.export import to_json
from avsbench_harness.leaderboard.markdown import render
from avsbench_harness.leaderboard.site import build_site
from avsbench_harness.leaderboard.tables import build_tables
from avsbench_harness.results.folder import folder_faults, read_results
from avsbench_harness.results.measurement import (
    Measurement,
    Spread,
    find_measurement,
    measurement_files,
    read_measurement,
    read_measurements,
    write_measurement,
)
from avsbench_harness.results.record import read_records


def measurement(**changes: Any) -> Measurement:
    """A measurement of COMBO with R50 on S4 with its smoke recipe, which also has committed records."""
    speed = {
        "clips_per_second": {"median": 41.5, "least": 40.0, "most": 42.0},
        "multiple": {"median": 5.0, "least": 4.9, "most": 5.1},
    }
    values: dict[str, Any] = {
        "created": "2026-01-02T03:04:05Z", "method": "combo", "variant": "paper", "backbone": "r50",
        "task": "s4", "code": "made up", "options": {}, "changes": {}, "precision": "fp32",
        "device": {"kind": "cuda", "name": "NVIDIA A_100 <80 GB>"},
        "batch": {"clips": 2, "frames": 5, "image_size": 64, "annotated": "first"},
        "repeats": 5, "cost": {"parameters": 1_000_000, "gmacs": 1.0}, "forward": speed, "training": speed,
        "memory_gib": 7.25,
        "loading": {"waiting": 0.1, "data": "avsbench", "synthetic": False, "workers": 4, "batches": 8},
        "environment": {
            "harness": "0", "python": "3", "platform": "p", "packages": {}, "device": "cuda", "threads": 1,
            "git": None,
        },
    }  # fmt: skip
    return Measurement.parse({**values, **changes}, "the test")


@pytest.fixture
def results(data: Path, tmp_path: Path) -> Path:
    """A copy of the committed records."""
    return Path(shutil.copytree(data / "records", tmp_path / "results"))


def test_json_round_trip(tmp_path: Path) -> None:
    made = measurement(backbone="timm/odd name.v2")
    path = write_measurement(tmp_path, made)
    assert path == tmp_path / "bench" / "s4-combo-paper-timm_odd_name_v2-cuda-fp32-b2.json"
    assert read_measurement(path) == made
    again = made.model_copy(update={"repeats": 9})
    assert write_measurement(tmp_path, again) == path
    assert read_measurements(tmp_path) == [again]


def test_spread() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(median=2.5, least=1.0, most=10.0)
    with pytest.raises(UsageError, match="the median does not lie between"):
        Spread.parse({"median": 3.0, "least": 1.0, "most": 2.0}, "the test")


def test_leaderboard_shows_the_measurement_instead_of_the_speed_of_the_run(results: Path) -> None:
    before = render(read_results(results)).splitlines()
    write_measurement(results, measurement())
    after = render(read_results(results)).splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    device = r"NVIDIA A\_100 \<80 GB\>"
    (_, protocol), (old, new) = changed  # the row with other options is unchanged
    assert "Clips/s and GiB with a device are training speed and memory measured by avsb bench" in protocol
    assert "| combo (paper) | r50 | smoke 93fc46cd |" in old
    assert f"| 91.6 | 14.3 | 41.50 ({device}, fp32, batch 2) | 7.2 ({device}) |" in new
    assert old.split(" | 91.6 |")[0] == new.split(" | 91.6 |")[0]
    checked = read_results(results)
    found = [row["measurement"] for table in to_json(build_tables(checked.records, checked))
             for row in table["rows"]]  # fmt: skip
    assert found.count("s4-combo-paper-r50-cuda-fp32-b2") == 1
    assert render(read_results(results)).splitlines() == after


def test_site_escapes_the_device(results: Path, tmp_path: Path) -> None:
    write_measurement(results, measurement())
    page = build_site(read_results(results), tmp_path / "site").read_text(encoding="utf-8")
    assert 'title="NVIDIA A_100 &lt;80 GB&gt;, fp32, batch 2">41.50</td>' in page
    assert "<80 GB>" not in page
    assert page.count("measured by avsb bench") == 1  # above one table


def test_measurement_of_a_record(data: Path) -> None:
    (record,) = [one for one in read_records(data / "records") if one.run_id == "s4-combo-r50-s0-2bef3ea8c0"]
    recipe = record.spec["recipe"]
    assert (recipe["image_size"], recipe["batch_size"], recipe["precision"]) == (64, 2, "fp32")
    batch = {"frames": 5, "image_size": 64, "annotated": "first"}
    cpu = measurement(device={"kind": "cpu", "name": "a CPU", "threads": 2})
    half = measurement(precision="bf16")
    many = measurement(batch={**batch, "clips": 8})
    exact = measurement()
    for known, best in (
        ([cpu, half, many, exact], exact),
        ([exact, many, half, cpu], exact),
        ([cpu, half, many], many),
        ([cpu, half], half),
        ([cpu], cpu),
        ([], None),
    ):
        assert find_measurement(record, known) is best
    for other in (
        {"method": "catr"}, {"variant": "released"}, {"backbone": "pvt"}, {"task": "ms3"},
        {"options": {"audio_queries": "all"}}, {"changes": {"clip_norm": 5.0}},
        {"batch": {**batch, "clips": 2, "image_size": 224}},
    ):  # fmt: skip
        assert find_measurement(record, [measurement(**other)]) is None
    changed = measurement(changes={"optimizer.name": recipe["optimizer"]["name"]})
    assert find_measurement(record, [changed]) is changed
    assert changed.name.startswith(f"{exact.name}-")


def test_faults_name_the_file(results: Path) -> None:
    path = write_measurement(results, measurement())
    assert list(folder_faults(read_results(results))) == []
    values = json.loads(path.read_text())
    for name, changes in (
        ("a.json", {}),
        ("b.json", {"memory": 1}),
        ("c.json", {"loading": {**values["loading"], "waiting": 1.5}}),
    ):
        (path.parent / name).write_text(json.dumps({**values, **changes}))
    (path.parent / "d.json").write_text("[]")
    content = read_results(results)
    found = list(folder_faults(content))
    assert (
        len(content.measurements) + len(content.refused_measurements) == len(measurement_files(results)) == 5
    )
    assert [
        fault for fault, name in zip(found, "abcd", strict=True) if f"bench/{name}.json" not in fault
    ] == []
    assert "its name must be that of the measurement" in found[0]
    assert "Unknown key 'memory'" in found[1]
    assert "'loading.waiting' is 1.5" in found[2]
    assert "expected a JSON object" in found[3]


def test_a_damaged_measurement_is_refused_and_the_rest_is_shown(results: Path) -> None:
    before = render(read_results(results))
    path = write_measurement(results, measurement())
    path.write_text("{")
    after = render(read_results(results))
    assert set(before.splitlines()) < set(after.splitlines())
    assert f"- bench/{path.name}: ".replace("_", r"\_") in after
    assert "is not valid JSON" in after
