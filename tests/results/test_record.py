"""Writing and reading of records."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.leaderboard.markdown import to_markdown
from avsbench_harness.results.record import (
    Record,
    clips_file,
    environment,
    read_record,
    read_records,
    recipe_value,
    write_failure,
)

from .records import make_record, score_clips


def test_records_are_immutable(tmp_path: Path) -> None:
    made = score_clips(tmp_path, "a", 1)
    path = tmp_path / f"{made.run_id}.json"
    assert read_record(path) == made
    assert read_records(tmp_path) == [made]
    table = pd.read_csv(clips_file(path))
    assert list(table["J"]) == [0.0] + [1.0] * 39
    with pytest.raises(UsageError, match="records are immutable"):
        score_clips(tmp_path, "a", 2)
    assert read_record(path) == made


def test_a_scored_record_replaces_a_failed_one_but_not_vice_versa(tmp_path: Path) -> None:
    failed = make_record(
        "a", None, status="failed", reason="out | of memory", scores=[], submission_sha256=None
    )
    write_failure(tmp_path / "a.json", failed)
    page = to_markdown(read_records(tmp_path))
    assert r"- a: n/a (failed: out \| of memory)" in page
    assert "no records yet" not in page
    made = score_clips(tmp_path, "a", 0)
    path = tmp_path / f"{made.run_id}.json"
    write_failure(path, failed)
    assert read_record(path) == made
    path.write_text(failed.model_dump_json())
    assert score_clips(tmp_path, "a", 0) == read_record(path) == made


def test_json_round_trip(data: Path) -> None:
    for record in read_records(data / "records"):
        assert Record.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize(
    ("text", "message"),
    [("[]", "is not a record"), ("{}", "'run_id'"), ("{", "is not valid JSON")],
)
def test_invalid_records_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_record(path)
    assert "b.json" in str(caught.value)
    with pytest.raises(MissingDataError, match=r"Cannot read .*none.json: No such file"):
        read_record(tmp_path / "none.json")


def test_recipe_values_have_dotted_keys() -> None:
    recipe = {"optimizer": {"lr": 0.1, "betas": None}, "epochs": 3}
    assert recipe_value(recipe, "optimizer.lr") == 0.1
    assert recipe_value(recipe, "optimizer.betas", 1) is None
    assert recipe_value(recipe, "optimizer.momentum", 1) == 1
    assert recipe_value(recipe, "epochs.first") is None


@pytest.mark.parametrize("value", ["", "0", "x", "-3", "4,2", "9" * 50])
def test_the_number_of_threads_is_that_of_the_training(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert environment("cpu", 3).threads == 3
    assert environment("cpu").threads == torch.get_num_threads()
    monkeypatch.delitem(sys.modules, "torch")
    assert environment("cpu").threads == os.cpu_count()
