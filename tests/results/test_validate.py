"""Validation of records; measurements are in ``test_measurement.py``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from avsbench_harness.recipe.resolve import merge
from avsbench_harness.results.record import classes_file, clips_file, write_failure, write_record
from avsbench_harness.results.validate import record_faults
from avsbench_harness.scoring import Scores, score_semantic

from .records import make_record, score_clips, score_entry


def test_valid_records(data: Path) -> None:
    assert record_faults(data / "records") == (13, [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "catr"}, "method is 'catr', but 'combo' in the spec"),
        ({"seed": 9}, "seed is 9, but 0 in the spec"),
        ({"data": {"synthetic": False}}, "data.synthetic is False, but True in the spec"),
        ({"spec": {"seed": 9}}, "spec_hash is not the hash of the spec"),
        ({"run_id": "s4-combo-r50-s0-0000000000"}, "does not end in the hash of the spec"),
    ],
)
def test_a_record_must_agree_with_its_spec(data: Path, tmp_path: Path, changes, message: str) -> None:
    name = "s4-combo-r50-s0-6cfafdc24d"
    values = merge(json.loads((data / "records" / f"{name}.json").read_text()), changes)
    path = tmp_path / f"{values['run_id']}.json"
    path.write_text(json.dumps(values))
    shutil.copy(data / "records" / f"{name}.clips.csv", clips_file(path))
    assert message in record_faults(tmp_path)[1][0]


def test_scores_must_agree_with_the_per_clip_file(tmp_path: Path) -> None:
    score_clips(tmp_path, "a", 1)
    assert record_faults(tmp_path) == (1, [])
    path = clips_file(tmp_path / "a.json")
    text = path.read_text().splitlines()
    path.write_text("\n".join([text[0], *text[2:]]) + "\n")
    (fault,) = record_faults(tmp_path)[1]
    assert "40 clips were scored, but the per-clip file has 39" in fault
    path.write_text("\n".join(text).replace("\n1,1,1,", "\n1,1,0.5,", 1) + "\n")
    (fault,) = record_faults(tmp_path)[1]
    assert "but the per-clip file gives" in fault
    path.unlink()
    (fault,) = record_faults(tmp_path)[1]
    assert "missing or damaged" in fault


def test_a_record_needs_its_file_name_and_a_failed_run_a_reason(tmp_path: Path) -> None:
    score_clips(tmp_path, "a", 1)
    for end in (".json", ".clips.csv"):
        (tmp_path / f"a{end}").rename(tmp_path / f"c{end}")
    (fault,) = record_faults(tmp_path)[1]
    assert "holds the record of run a" in fault
    broken = make_record("c", None, status="failed", scores=[], submission_sha256=None, spec=None)
    (tmp_path / "c.json").unlink()
    write_failure(tmp_path / "c.json", broken)
    (fault,) = record_faults(tmp_path)[1]
    assert "must have a reason" in fault


def semantic_scores(seed: int) -> Scores:
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 4, (6, 2, 8, 8)).astype(np.uint8)
    labels = np.where(draw.random(truth.shape) < 0.7, truth, 0).astype(np.uint8)
    return score_semantic(labels, truth)


def test_per_class_file_of_avss(tmp_path: Path) -> None:
    scores = semantic_scores(0)
    record = make_record("a", None, task="avss", scores=[score_entry(scores)], spec=None)
    write_record(tmp_path / "a.json", record, scores)
    assert record_faults(tmp_path) == (1, [])
    table = pd.read_csv(classes_file(tmp_path / "a.json"))
    assert set(table["class"]) == {0, 1, 2, 3}
    assert table["frames"].sum() == scores.tally.sums[:, 142:].sum()
