"""Robustness records against their tables; all values are computed in this file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from avsbench_harness.errors import UsageError
from avsbench_harness.files import sha256_json
from avsbench_harness.results.folder import read_results
from avsbench_harness.results.record import DataEntry, ScoreEntry, clips_file
from avsbench_harness.results.robustness import (
    ConditionEntry,
    EstimateEntry,
    RobustnessRecord,
    read_robustness,
    robustness_file,
    write_robustness,
)
from avsbench_harness.results.robustness_faults import read_gain, robustness_faults
from avsbench_harness.scoring import score_semantic

from .records import score_clips

RUN = f"s4-tiny-r50-s0-{'ab' * 5}"
SOURCES = {"a": "b", "b": "c", "c": "a", "d": "e", "e": "d"}
CLEAN = {"J": [0.9, 0.8, 0.7, 0.6, 0.5], "F": [0.9, 0.9, 0.8, 0.8, 0.6]}
OTHER = {"J": [0.3, 0.2, 0.6, 0.6, 0.1], "F": [0.5, 0.4, 0.7, 0.9, 0.0]}
OVERLAP = [0.5, 0.25, 1.0, 0.0, 0.75]


def interval(differences: np.ndarray) -> tuple[float, float]:
    """The percentile interval of the mean over 2,000 resamples of the clips."""
    draws = np.random.default_rng(0).integers(0, len(differences), (2000, len(differences)))
    low, high = np.quantile(differences[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def bca(values: np.ndarray) -> tuple[float, float] | None:
    from avsbench_harness.scoring.bootstrap import bootstrap_intervals

    return bootstrap_intervals(values[:, None], lambda sums: {"m": sums[..., 0] / len(values)}, ["m"])["m"]


def score(values: dict[str, list[float]]) -> ScoreEntry:
    return ScoreEntry(
        protocol="object/1",
        main=["J", "F"],
        metrics={name: float(np.mean(column)) for name, column in values.items()},
        intervals={name: bca(np.array(column)) for name, column in values.items()},
        clips=5,
    )


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder with one robustness record."""
    pairs = sha256_json(sorted([clip, source] for clip, source in SOURCES.items()))
    differences = {name: np.array(CLEAN[name]) - OTHER[name] for name in CLEAN}
    record = RobustnessRecord(
        format=1,
        run_id=RUN,
        spec_hash="ab" * 32,
        task="s4",
        data=DataEntry(name="avsbench", split="test", synthetic=False, solution="0" * 64),
        left_out=["f"],
        conditions=[
            ConditionEntry(condition="clean", submission_sha256="1" * 64, score=score(CLEAN)),
            ConditionEntry(
                condition="swapped",
                submission_sha256="2" * 64,
                score=score(OTHER),
                pairs=pairs,
                gain={
                    name: EstimateEntry(value=float(values.mean()), interval=interval(values))
                    for name, values in differences.items()
                },
                sensitivity=0.5,
            ),
        ],
    )
    common = {"clip": list(SOURCES), "frames": 5}
    table = pd.concat(
        [
            pd.DataFrame({"condition": "clean", **common, **CLEAN, "source": list(SOURCES)}),
            pd.DataFrame(
                {"condition": "swapped", **common, **OTHER, "source": list(SOURCES.values()),
                 "overlap": OVERLAP}
            ),
        ]
    )  # fmt: skip
    write_robustness(robustness_file(tmp_path, RUN, "test"), record, table, None)
    return tmp_path


@pytest.fixture
def path(results: Path) -> Path:
    return results / "robustness" / f"{RUN}.json"


def test_a_right_record_has_no_faults_and_a_gain(results: Path, path: Path) -> None:
    assert list(robustness_faults(path)) == []
    found = read_gain(path)
    assert (found.run_id, found.solution) == (RUN, "0" * 64)
    gain = found.difference
    assert gain is not None
    assert gain.value == pytest.approx(0.34)  # (0.6 + 0.6 + 0.1 + 0.0 + 0.4) / 5
    assert gain.interval == interval(np.array(CLEAN["J"]) - OTHER["J"])
    assert gain.significant
    assert read_gain(path, "clean").difference is None


def test_gains_of_the_records_in_a_folder(results: Path, path: Path) -> None:
    run = score_clips(results, "s4-tiny-r50-s0", 5, data={"solution": "0" * 64})
    assert read_results(results).gains == {}  # the robustness record is of another run
    for file in (path, clips_file(path)):
        file.rename(file.with_name(file.name.replace(RUN, run.run_id)))
    moved = path.with_name(f"{run.run_id}.json")
    change(moved, run.run_id, "run_id")
    change(moved, run.spec_hash, "spec_hash")
    for _ in range(2):  # checked, then from the cache
        content = read_results(results)
        assert content.gains == {run.run_id: read_gain(moved).difference}
        assert content.refusals == []
    change(moved, "1" * 64, "data", "solution")
    content = read_results(results)
    assert content.gains == {}
    assert content.refused_robustness == ((moved, "its ground truth is not that of the run's record."),)


def change(path: Path, value: Any, *keys: str | int) -> None:
    content = json.loads(path.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("value", "keys", "message"),
    [
        (0.35, ("conditions", 1, "gain", "J", "value"), "the gain of J is 0.35, but the per-clip file gives"),
        ([0.1, 0.4], ("conditions", 1, "gain", "J", "interval"), "interval of the gain of J is not that"),
        (None, ("conditions", 1, "gain", "F", "interval"), "interval of the gain of F is not that"),
        (None, ("conditions", 1, "gain"), "gain must have the main metrics"),
        (0.4, ("conditions", 1, "sensitivity"), "sensitivity is 0.4, but the per-clip file gives 0.5"),
        ("3" * 64, ("conditions", 1, "pairs"), "pairs is not the fingerprint"),
        (
            0.95,
            ("conditions", 0, "score", "metrics", "J"),
            "clean: J is 0.95, but the per-clip",
        ),
        ([0.6, 0.9], ("conditions", 0, "score", "intervals", "J"), "clean: the interval of J is"),
        (0.5, ("conditions", 0, "sensitivity"), "neither a gain nor a sensitivity"),
        ("swaped", ("conditions", 1, "condition"), "they must be known, different, and start with clean"),
        ("avsbench", ("conditions", 1, "score", "protocol"), "only scores under object/1 are allowed"),
        (["e"], ("left_out",), "a clip is scored and listed as left out"),
        ("s5", ("task",), "no task 's5'"),
        ("val", ("data", "split"), "a file must have the name of its record"),
        ("cd" * 32, ("spec_hash",), "the run id does not end in the hash"),
        ("short", ("spec_hash",), "unreadable"),
        (3, ("format",), "unreadable"),
        (2, ("format",), "rows or one of the columns condition, source, overlap, area_1"),
    ],
)
def test_changed_values_are_found(
    results: Path, path: Path, value: Any, keys: tuple[str | int, ...], message: str
) -> None:
    change(path, value, *keys)
    assert any(message in fault for fault in robustness_faults(path))
    for _ in range(2):
        content = read_results(results)
        assert content.gains == {}
        assert [name for name, _ in content.refusals] == [f"robustness/{path.name}"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text.replace("swapped,a,5", "swapped,b,5"), "clips are missing or named twice"),
        (lambda text: text.replace("0.2,0.4,c,0.25", "0.2,0.4,b,0.25"), "a clip has its own recording"),
        (lambda text: text.replace("0.9,0.9,a,", "0.9,0.9,b,"), "a clip has the recording of another one"),
        (lambda text: text.replace(",0.25", ",2.5"), "overlap must be from 0 to 1"),
        (lambda text: text.replace(",0.25", ","), "overlap must be from 0 to 1"),
        (lambda text: text.replace(",0.25", ",x"), "missing or damaged"),
        (lambda text: text.replace(",0.25", ",0.25,7"), "truncated or overlong row"),
        (lambda text: text.replace(",0.25", ""), "truncated or overlong row"),
        (lambda text: text.replace("overlap", "overlaps"), "overlap are missing"),
        (lambda text: text.replace("condition", "state"), "no column condition"),
        (lambda text: "\n".join(text.splitlines()[:6]), "has the conditions clean, not those of the record"),
        (lambda text: text.replace("\nclean,e", "\nclean,f"), "its clips are not those of the clean"),
        (lambda text: "", "not those of the record"),
    ],
)
def test_changed_tables_are_found(path: Path, edit: Callable[[str], str], message: str) -> None:
    table = path.with_suffix(".clips.csv")
    text = table.read_text()
    for number in ("0.20000000000000001", "0.40000000000000002", "0.90000000000000002"):
        text = text.replace(number, number[:3])
    table.write_text(text)
    assert list(robustness_faults(path)) == []
    assert edit(text) != text
    table.write_text(edit(text))
    assert any(message in fault for fault in robustness_faults(path)), list(robustness_faults(path))


def test_missing_tables_and_other_json_are_faults(path: Path) -> None:
    path.with_suffix(".clips.csv").unlink()
    (fault,) = robustness_faults(path)
    assert fault.startswith("unreadable, or its per-clip file is missing")
    path.write_text("[]")
    with pytest.raises(UsageError, match="expected a JSON object"):
        read_robustness(path)


def test_records_are_immutable(path: Path) -> None:
    with pytest.raises(UsageError, match="records are immutable"):
        write_robustness(path, read_robustness(path), pd.DataFrame(), None)


def test_records_of_avss_have_the_sums_of_classes(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    truth = draw.integers(0, 3, (4, 5, 8, 8)).astype(np.uint8)
    clean = score_semantic(truth, truth, clips=list("abcd"))
    other = score_semantic(draw.integers(0, 3, truth.shape).astype(np.uint8), truth, clips=list("abcd"))
    sources = dict(zip("abcd", "badc", strict=True))

    def entry(scores: Any) -> ScoreEntry:
        return ScoreEntry(protocol="semantic/1", main=["mIoU", "F"], metrics=scores.metrics,
                          intervals=scores.intervals, clips=4)  # fmt: skip

    resampled = []
    for clips in np.random.default_rng(0).integers(0, 4, (2000, 4)):
        means = [scores.tally.reduce(scores.tally.sums[clips].sum(axis=0)) for scores in (clean, other)]
        resampled.append([means[0][name] - means[1][name] for name in ("mIoU", "F")])
    ends = np.quantile(resampled, [0.025, 0.975], axis=0)
    record = RobustnessRecord(
        format=1,
        run_id=RUN,
        spec_hash="ab" * 32,
        task="avss",
        data=DataEntry(name="avsbench", split="test", synthetic=False, solution="0" * 64),
        left_out=[],
        conditions=[
            ConditionEntry(condition="clean", submission_sha256="1" * 64, score=entry(clean)),
            ConditionEntry(
                condition="swapped",
                submission_sha256="2" * 64,
                score=entry(other),
                pairs=sha256_json(sorted(map(list, sources.items()))),
                gain={
                    name: EstimateEntry(
                        value=clean.metrics[name] - other.metrics[name],
                        interval=(float(ends[0, place]), float(ends[1, place])),
                    )
                    for place, name in enumerate(("mIoU", "F"))
                },
                sensitivity=0.75,
            ),
        ],
    )
    tables, classes = [], []
    for name, scores, origin in (("clean", clean, {c: c for c in "abcd"}), ("swapped", other, sources)):
        overlap = np.nan if name == "clean" else 0.25
        columns = {"condition": name, "source": list(origin.values()), "overlap": overlap}
        tables.append(scores.per_clip.assign(**columns))
        classes.append(scores.per_clip_class.assign(condition=name))
    path = robustness_file(tmp_path, RUN, "test")
    write_robustness(path, record, pd.concat(tables), pd.concat(classes))
    assert list(robustness_faults(path)) == []
    assert read_gain(path).difference.value == pytest.approx(
        clean.metrics["mIoU"] - other.metrics["mIoU"], abs=1e-12
    )
    change(path, 0.0, "conditions", 1, "gain", "mIoU", "value")
    assert any("the gain of mIoU is 0.0" in fault for fault in robustness_faults(path))
