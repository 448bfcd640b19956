"""Validation of a folder of records; measurements are in ``test_measurement.py``."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from avsbench_harness.errors import SubmissionError
from avsbench_harness.recipe.resolve import merge
from avsbench_harness.results import folder
from avsbench_harness.results.folder import folder_faults, read_results
from avsbench_harness.results.record import (
    Record,
    classes_file,
    clips_file,
    read_record,
    write_failure,
    write_record,
)
from avsbench_harness.scoring import Scores, score_object, score_semantic
from avsbench_harness.submission import read_solution, write_solution

from .records import make_record, score_clips, score_entry, write_scores

#: A valid record of the fixtures.
NAME = "s4-combo-r50-s0-3aaf0e1d1c"


def faults(path: Path) -> list[str]:
    return list(folder_faults(read_results(path)))


def change_scores(results: Path, record: Record, **changes: Any) -> None:
    """Change the entry of the canonical scores of a record."""
    path = results / f"{record.run_id}.json"
    values = json.loads(path.read_text())
    values["scores"][0] = merge(values["scores"][0], changes)
    path.write_text(json.dumps(values))


def test_valid_records(data: Path) -> None:
    results = read_results(data / "records")
    assert (len(results.records), faults(data / "records")) == (13, [])
    assert read_results(data / "records").bootstraps.keys() == results.bootstraps.keys()  # from the cache


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "catr"}, "method is 'catr', but 'combo' in the spec"),
        ({"seed": 9}, "seed is 9, but 0 in the spec"),
        ({"data": {"synthetic": False}}, "data.synthetic is False, but True in the spec"),
        ({"spec": {"seed": 9}}, "spec_hash is not the hash of the spec"),
        ({"spec": {"recipe": []}}, "the spec: 'recipe' is [], but"),
        ({"spec": {"recipe": {"clip_norm": [None]}}}, "the spec: 'recipe.clip_norm' is [None], but"),
        ({"spec": {"code": {"": None}}}, "the spec: 'code' is {'': None}, but"),
        ({"spec": {"weights": 1}}, "the spec: 'weights' is 1, but"),
        ({"run_id": "s4-combo-r50-s0-0000000000"}, "does not end in the hash of the spec"),
        ({"spec": None}, "the spec is missing, but variant, backbone, preset, seed"),
        ({"task": "ms4"}, "there is no task 'ms4'"),
        ({"data": {"solution": "x"}}, "which is not a SHA-256"),
        ({"created": "tomorrow"}, "created is 'tomorrow', which is not a date"),
        ({"cost": {"gmacs": -1}}, "cost.gmacs is -1.0, which is not possible"),
        ({"training": {"selected_step": 99}}, "training.selected_step is 99, after the last step"),
        ({"training": {"clips_per_second": 1e300}}, "training.clips_per_second is 1e+300, which is"),
    ],
)
def test_a_record_must_agree_with_its_spec(data: Path, tmp_path: Path, changes, message: str) -> None:
    values = merge(json.loads((data / "records" / f"{NAME}.json").read_text()), changes)
    path = tmp_path / f"{values['run_id']}.json"
    path.write_text(json.dumps(values))
    shutil.copy(data / "records" / f"{NAME}.clips.csv", clips_file(path))
    assert message in faults(tmp_path)[0]
    assert read_results(tmp_path).records == ()


def test_claims_without_a_spec_need_the_solution(tmp_path: Path) -> None:
    masks = np.zeros((3, 5, 224, 224), np.uint8)
    masks[:, :, :100] = 1
    solution = tmp_path / "solution.npz"
    clips = [(f"c{index}", mask, "") for index, mask in enumerate(masks)]
    write_solution(solution, "s4", "test", clips, dataset="real", synthetic=False, size=(224, 224))
    with read_solution(solution) as truth:
        fingerprint = truth.fingerprint
    scores = score_object(masks * 255, masks, clips=["c0", "c1", "c2"])
    external = dict.fromkeys(("variant", "backbone", "preset", "seed", "spec"))
    for synthetic, count in ((True, 0), (False, 1)):
        results = tmp_path / str(synthetic)
        made = make_record(
            "a", None, scores=[score_entry(scores)], **external,
            data={"name": "real", "synthetic": synthetic, "solution": fingerprint},
        )  # fmt: skip
        write_record(results / "a.json", made, scores)
        found = faults(results)
        assert len(found) == count
    assert "data.synthetic is False, but there is no spec" in found[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": {"J": 0.99}}, "J is 0.99, but the per-clip file gives 0.975"),
        ({"metrics": {"J": 1.5}}, "J is 1.5, outside its range"),
        ({"metrics": {"J": None}}, "J is None, but the per-clip file gives 0.975"),
        ({"metrics": {"F_half": 0.9}}, "F_half is 0.9, but the per-clip file gives"),
        ({"metrics": {"J_object": 0.1}}, "J_object is 0.1, but the per-clip file gives"),
        ({"metrics": {"F_split": 0.999}}, "F_split is 0.999, more than F of the per-clip file"),
        (
            {"metrics": {"false_positive_area": 0.5}},
            "false_positive_area is 0.5, but the per-clip file gives",
        ),
        ({"metrics": {"best": 0.5}}, "metrics are missing, or not those of the protocol"),
        (
            {"intervals": {"J": [0.97, 0.98]}},
            "the interval of J is [0.97, 0.98], but the per-clip file gives",
        ),
        ({"intervals": {"J": None}}, "the interval of J is None, but the per-clip file gives"),
        ({"intervals": {"J": [0.98, 0.97]}}, "which is not possible"),
        ({"main": []}, "main is [], but ['J', 'F'] in the protocol"),
        ({"main": ["J", "J&F"]}, "main is ['J', 'J&F'], but ['J', 'F'] in the protocol"),
        ({"protocol": "object/2"}, "a finished run must have scores under object/1"),
        ({"protocol": "semantic/1"}, "a finished run must have scores under object/1"),
        ({"part": "public"}, "a finished run must have scores under object/1"),
        ({"batch": 4}, "batch or clips is not possible"),
        ({"clips": 41}, "41 clips were scored, but the per-clip file has 40"),
    ],
)
def test_fabricated_scores_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    record = score_clips(tmp_path, "a", 1)
    assert faults(tmp_path) == []
    change_scores(tmp_path, record, **changes)
    assert message in faults(tmp_path)[0]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "scores has an entry twice"),
        ({"part": "public", "clips": 20}, "the public and the private clips are not all clips"),
        (
            {"protocol": "robust-fpr", "part": "public", "batch": 1},
            "robust-fpr (public): main is ['J', 'F'], but ['FPR', 'J', 'F'] in the protocol",
        ),
        ({"protocol": "best"}, "s4 has no such protocol"),
        ({"protocol": "combo", "batch": 1}, "no submission has such scores"),
        ({"protocol": "avsbench", "batch": 1}, "metrics are missing, or not those of the protocol"),
    ],
)
def test_fabricated_entries_are_refused(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    record = score_clips(tmp_path, "a", 1)
    path = tmp_path / f"{record.run_id}.json"
    values = json.loads(path.read_text())
    values["scores"].append(merge(values["scores"][0], entry))
    path.write_text(json.dumps(values))
    assert message in " ".join(faults(tmp_path))


def test_parts_must_add_up(tmp_path: Path) -> None:
    record = score_clips(tmp_path, "a", 4)
    path = tmp_path / f"{record.run_id}.json"
    values = json.loads(path.read_text())
    parts = [
        merge(values["scores"][0], {"part": part, "clips": 20, "metrics": {"J": j}})
        for part, j in (("public", 0.8), ("private", 1.0))
    ]
    values["scores"] += parts
    path.write_text(json.dumps(values))
    assert faults(tmp_path) == []
    metrics = {"protocol": "avsbench", "batch": 1, "metrics": {"J": 1, "F": 1}}
    extra = {**values["scores"][1], **metrics}
    path.write_text(json.dumps({**values, "scores": [*values["scores"], extra]}))
    assert "only object/1 has scores of parts" in faults(tmp_path)[0]
    parts[0]["metrics"]["J"] = 0.9
    path.write_text(json.dumps(values))
    assert "J of the public and the private clips contradicts the per-clip file" in faults(tmp_path)[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\n1,1,1,1,1,", "\n1,1,1,0.5,1,", "but the per-clip file gives"),
        ("\n1,1,1,", "\n1,1,0.5,", "J of a clip contradicts J_object and false_positive_area"),
        ("\n1,1,1,", "\n1,1,1.5,", "J must be from 0 to 1"),
        ("\n1,1,1,", "\n1,1,,", "J of a clip is missing"),
        ("\n1,1,1,", "\n1,1,nan,", "missing or damaged"),
        ("\n1,1,1,", "\n1,1,1e999,", "J must be from 0 to 1"),
        ("\n1,1,1,", "\n2,1,1,", "clips are missing or named twice"),
        ("\n1,1,1,", "\n1,99,1,", "frames must be integers from 1 to 5"),
        ("\n1,1,1,", "\n1,1,x,", "missing or damaged"),
        ("\n1,1,1,", "\n1,1,1,1,1,1,1,1,1,1,1,", "missing or damaged"),
        ("clip,frames", "clip,frame", "lacks the column frames"),
        ("clip,frames", "clip,frames,J", "its header is not valid"),
    ],
)
def test_damaged_per_clip_files(tmp_path: Path, old: str, new: str, message: str) -> None:
    record = score_clips(tmp_path, "a", 1)
    path = clips_file(tmp_path / f"{record.run_id}.json")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert message in faults(tmp_path)[0]


def test_missing_rows_and_files(tmp_path: Path) -> None:
    path = clips_file(tmp_path / f"{score_clips(tmp_path, 'a', 1).run_id}.json")
    text = path.read_text().splitlines()
    path.write_text("\n".join([text[0], *text[2:]]) + "\n")
    assert "40 clips were scored, but the per-clip file has 39" in faults(tmp_path)[0]
    path.unlink()
    assert "missing or damaged" in faults(tmp_path)[0]


def test_a_record_needs_its_file_name_and_a_failed_run_a_reason(tmp_path: Path) -> None:
    made = score_clips(tmp_path, "a", 1)
    for end in (".json", ".clips.csv"):
        (tmp_path / f"{made.run_id}{end}").rename(tmp_path / f"c{end}")
    (fault,) = faults(tmp_path)
    assert f"holds the record of run {made.run_id}" in fault
    (tmp_path / "c.json").unlink()
    broken = made.model_copy(update={"status": "failed", "scores": []})
    write_failure(tmp_path / f"{made.run_id}.json", broken)
    (fault,) = faults(tmp_path)
    assert "must have a reason" in fault


def semantic_scores(seed: int) -> Scores:
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 4, (6, 2, 8, 8)).astype(np.uint8)
    labels = np.where(draw.random(truth.shape) < 0.7, truth, 0).astype(np.uint8)
    return score_semantic(labels, truth)


def test_per_class_file_of_avss(tmp_path: Path) -> None:
    scores = semantic_scores(0)
    record = write_scores(tmp_path, "a", scores, task="avss")
    assert faults(tmp_path) == []
    path = classes_file(tmp_path / f"{record.run_id}.json")
    table = pd.read_csv(path)
    assert set(table["class"]) == {0, 1, 2, 3}
    assert table["frames"].sum() == scores.tally.sums[:, 142:].sum()
    text = path.read_text()
    for old, new, message in (
        ("\n0,1,", "\n0,71,", "classes outside 0 to 70"),
        ("\n0,1,", "\n0,2,", "has a class of a clip twice"),
        ("\n0,1,", "\n9,1,", "has unknown clips"),
        ("\n0,1,", "\n0,1,3", "from 0 to the number of frames"),
    ):
        path.write_text(text.replace(old, new, 1))
        assert message in faults(tmp_path)[0]
    path.write_text(text)
    change_scores(tmp_path, record, metrics={"F_seen": 0.5})
    assert "F_seen is 0.5, but the per-clip file gives" in faults(tmp_path)[0]


HOSTILE = {
    "deep": "[" * 200_000 + "]" * 200_000,
    "nested": '{"a":' * 400 + "1" + "}" * 400,
    "digits": '{"seed": ' + "9" * 5000 + "}",
    "integer": '{"seed": ' + "9" * 400 + "}",
    "infinity": '{"seed": 1e999}',
    "nan": '{"seed": NaN}',
    "surrogate": r'{"method": "\ud800"}',
    "torn": '{"method": "a", "ta',
    "list": "[1]",
    "empty": "",
    "missing": "{}",
    "escape": '{"\\u001b[31m\\n": 1}',
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_record_is_refused_and_the_rest_is_kept(tmp_path: Path, kind: str) -> None:
    record = score_clips(tmp_path, "a", 1)
    (tmp_path / "hostile.json").write_text(HOSTILE[kind])
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "bench").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    os.mkfifo(tmp_path / "bench" / "pipe.json")
    results = read_results(tmp_path)
    assert [one.run_id for one in results.records] == [record.run_id]
    assert {path.name for path, _ in results.refused} == {
        "hostile.json", "bytes.json", "folder.json", "pipe.json",
    }  # fmt: skip
    assert "not a regular file" in results.refused_measurements[0][1]
    for fault in folder_faults(results):
        assert fault.isprintable()
        assert len(fault) < 1000


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_random_damage_never_stops_the_validation(data: Path, tmp_path: Path, count: int) -> None:
    """Records and tables with random bytes replaced, removed and repeated: no false score is shown."""
    draw = random.Random(count)
    names = [path.stem for path in (data / "records").glob("*.json")]
    for index in range(count):
        name = draw.choice(names)
        for end in (".json", ".clips.csv", ".classes.csv"):
            source = data / "records" / f"{name}{end}"
            if not source.is_file():
                continue
            content = bytearray(source.read_bytes())
            for _ in range(draw.randrange(4)):
                at = draw.randrange(len(content))
                piece = draw.choice(
                    [bytes([draw.randrange(256)]), b"", content[at : at + 50] * 2, b'"', b"-1e9"]
                )
                content[at : at + draw.randrange(1, 20)] = piece
            (tmp_path / f"{name}{end}").write_bytes(content)
        results = read_results(tmp_path)
        for record in results.records:
            genuine = read_record(data / "records" / f"{record.run_id}.json")
            for ours, theirs in zip(record.scores, genuine.scores, strict=True):
                assert ours.protocol == theirs.protocol
                for metric in theirs.main:
                    assert ours.metrics[metric] == pytest.approx(theirs.metrics[metric], abs=1e-9), index


def test_a_damaged_cache_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    record = score_clips(tmp_path / "results", "a", 1)
    expected = read_results(tmp_path / "results").bootstraps[record.run_id]
    path = tmp_path / "cache" / "records.sqlite"
    for content in (b"not a database", path.read_bytes()[:5000], b""):
        path.write_bytes(content)
        found = read_results(tmp_path / "results").bootstraps[record.run_id]
        assert np.array_equal(found.resampled, expected.resampled)
    assert read_results(tmp_path / "results").keys


def test_only_changed_records_are_checked_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    results = tmp_path / "results"
    shutil.copytree(data / "records", results)
    checked: list[int] = []
    resample = folder.resampled_sums

    def count(tables: list[Any]) -> Any:
        checked.append(len(tables))
        return resample(tables)

    monkeypatch.setattr(folder, "resampled_sums", count)
    first = read_results(results)
    assert sum(checked) == 12  # one of the 13 runs has failed
    checked.clear()
    again = read_results(results)
    assert not checked
    assert again.records == first.records
    assert again.keys == first.keys
    for name, bootstrap in first.bootstraps.items():
        assert np.array_equal(bootstrap.resampled, again.bootstraps[name].resampled)
    score_clips(results, "new", 1)
    path = clips_file(results / f"{NAME}.json")
    path.write_text(path.read_text().replace("0.0", "0.1", 1))
    assert [path.stem for path, _ in read_results(results).refused] == [NAME]
    assert sum(checked) == 1


def test_a_table_of_too_many_clips_is_refused_before_it_is_resampled(tmp_path: Path) -> None:
    path = clips_file(tmp_path / f"{score_clips(tmp_path, 'a', 1).run_id}.json")
    rows = "".join(f"c{index},5,0.5,0.5\n" for index in range(20_001))
    path.write_text(f"clip,frames,J,F\n{rows}")
    assert "it has more than 20000 clips" in faults(tmp_path)[0]


def test_a_solution_that_cannot_be_read_concerns_its_records_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = score_clips(tmp_path, "a", 1)
    external = dict.fromkeys(("variant", "backbone", "preset", "seed", "spec"))
    made = make_record("b", 0.5, data={"synthetic": True}, **external)
    (tmp_path / "b.json").write_text(made.model_dump_json())

    def damaged(fingerprint: str) -> Path:
        raise SubmissionError("the solution is damaged")

    monkeypatch.setattr(folder, "find_solution", damaged)
    results = read_results(tmp_path)
    assert [record.run_id for record in results.records] == [good.run_id]
    assert results.refused == ((tmp_path / "b.json", ("unreadable: the solution is damaged",)),)
