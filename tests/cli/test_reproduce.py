"""``avsb reproduce``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from avsbench_harness.recipe.resolve import merge


def test_a_rerun_is_bitwise_identical(
    avsb, tiny: str, real_s4: Path, tmp_path: Path, quick_options: list[object]
) -> None:
    ran = avsb("run", "--method", tiny, *quick_options, "--set", "optimizer.lr=0.02", "--json")
    assert ran.code == 0, ran.err
    record = tmp_path / "results" / f"{ran.json['run_id']}.json"
    given = ("--data", real_s4, "--method", tiny)
    again = avsb("reproduce", record, "--out", tmp_path / "again", *given, "--json")
    assert again.code == 0, again.err
    assert {metric["verdict"] for metric in again.json["metrics"]} == {"same bits"}
    assert again.json["differences"] == []
    same = avsb("reproduce", record, "--out", tmp_path, *given)
    assert same.code == 2
    assert "pass another folder" in same.err

    changed = json.loads(record.read_text())
    changed["scores"][0]["metrics"]["J"] += 0.1
    changed["scores"][0]["metrics"]["F"] += 1e-6
    changed["environment"]["packages"]["torch"] = "0.1"
    assert changed["environment"]["threads"] == torch.get_num_threads()
    changed["environment"]["threads"] = 77
    other = tmp_path / "other" / record.name
    other.parent.mkdir()
    other.write_text(json.dumps(changed))
    again = avsb("reproduce", other, "--out", tmp_path / "again", *given, "--json")
    assert again.code == 1
    words = {metric["metric"]: metric["verdict"] for metric in again.json["metrics"]}
    assert (words["J"], words["F"]) == ("different", "within tolerance")
    assert any(line.startswith("torch: 0.1 then") for line in again.json["differences"])
    threads = f"threads (results on the CPU depend on them): 77 then, {torch.get_num_threads()} now"
    assert threads in again.json["differences"]
    assert "Set OMP_NUM_THREADS=77 to use it" in again.err


@pytest.fixture
def record(avsb, tiny: str, tmp_path: Path, quick_options: list[object]) -> Path:
    """The record of a short run."""
    ran = avsb("run", "--method", tiny, *quick_options, "--json")
    return tmp_path / "results" / f"{ran.json['run_id']}.json"


def changed(record: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a record with another spec, in another folder, as a stranger would send it."""
    values = json.loads(record.read_text())
    values["spec"] = merge(values["spec"], changes)
    path = folder / "results" / record.name
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize("relative", [True, False])
def test_a_record_cannot_name_code(avsb, record: Path, tmp_path: Path, relative: bool, monkeypatch) -> None:
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "__init__.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    path = changed(record, tmp_path / "sent", method="./evil" if relative else str(folder))
    refused = avsb("reproduce", path, "--out", tmp_path / "again")
    assert refused.code == 2
    assert "which is not installed; pass its folder with --method" in refused.err
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("field", ["weights", "init"])
@pytest.mark.parametrize(
    "name", ["", "/weights.safetensors", "../../elsewhere/weights.safetensors", "gone/w"]
)
def test_missing_weights_are_refused(
    avsb, tiny: str, real_s4: Path, record: Path, tmp_path: Path, field: str, name: str
) -> None:
    weights = {"sha256": "0" * 64, "file": name, "published": False}
    path = changed(record, tmp_path / "sent", **{field: weights})
    out = tmp_path / "again"
    refused = avsb("reproduce", path, "--out", out, "--data", real_s4, "--method", tiny)
    assert refused.code == 4
    assert "which are neither in the store nor in runs/" in refused.err
    assert not out.exists()


def test_missing_audio_weights_are_refused(
    avsb, tiny: str, real_s4: Path, record: Path, tmp_path: Path
) -> None:
    path = changed(record, tmp_path / "sent", audio={"weights": "0" * 64, "trained": False})
    out = tmp_path / "again"
    refused = avsb("reproduce", path, "--out", out, "--data", real_s4, "--method", tiny)
    assert refused.code == 4
    assert "weights of the audio encoder with SHA-256 000000000000 are not available" in refused.err
    assert not out.exists()


def test_weights_of_another_run_are_found_by_their_hash(
    avsb, tiny: str, record: Path, tmp_path: Path, quick_options: list[object], real_s4: Path
) -> None:
    ran = avsb("run", "--method", tiny, *quick_options, "--init", record.stem, "--seed", 1, "--json")
    assert ran.code == 0, ran.err
    path = record.with_name(f"{ran.json['run_id']}.json")
    given = ("--out", tmp_path / "again", "--data", real_s4, "--method", tiny)
    again = avsb("reproduce", path, *given, "--json")
    assert again.code == 0, again.err
    weights = tmp_path / "runs" / record.stem / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert avsb("reproduce", path, *given).code == 4
