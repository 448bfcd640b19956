"""Scores of other protocols against the per-clip tables of the canonical one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avsbench_harness.results.clip_table import ClipSums, parse_object_table, parse_semantic_tables
from avsbench_harness.results.protocol_bounds import bound_faults
from avsbench_harness.scoring import Scores, score_object, score_semantic
from avsbench_harness.scoring.api import every_protocol
from avsbench_harness.tasks import AVSS, S4

from .records import score_entry

CLIPS = 9


def csv(table: Any) -> bytes:
    text = io.StringIO()
    table.to_csv(text, index=False, float_format="%.17g")
    return text.getvalue().encode()


def object_inputs(seed: int) -> tuple[Any, Any]:
    """Blobs with noise; some clips and frames have no object."""
    draw = np.random.default_rng(seed)
    masks = np.zeros((CLIPS, 5, 24, 24), np.uint8)
    for clip, frame in np.ndindex(CLIPS, 5):
        if draw.random() < 0.7 and clip:
            y, x = draw.integers(0, 16, 2)
            masks[clip, frame, y : y + 8, x : x + 8] = 1
    noise = draw.integers(-90, 90, masks.shape)
    return np.clip(masks * 160 + 50 + noise, 0, 255).astype(np.uint8), masks


def semantic_inputs(seed: int) -> tuple[Any, Any, Any]:
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 5, (CLIPS, 10, 12, 12)).astype(np.uint8)
    labels = np.where(draw.random(truth.shape) < 0.6, truth, draw.integers(0, 7, truth.shape))
    valid = np.ones((CLIPS, 10), bool)
    valid[::2, 5:] = False
    return labels.astype(np.uint8), truth, valid


def object_table(seed: int) -> ClipSums:
    return parse_object_table(csv(score_object(*object_inputs(seed)).per_clip), S4)


def semantic_table(seed: int) -> ClipSums:
    scores = score_semantic(*semantic_inputs(seed))
    return parse_semantic_tables(csv(scores.per_clip), csv(scores.per_clip_class), AVSS)


def scored(protocol: str, batch: int | None, seed: int) -> Scores:
    if protocol.startswith("avss"):
        return score_semantic(*semantic_inputs(seed), protocol)
    return score_object(*object_inputs(seed), protocol, batch=batch)


@pytest.mark.parametrize("seed", range(3))
def test_genuine_scores_are_within_the_bounds(seed: int) -> None:
    for task, table in (("s4", object_table(seed)), ("avss", semantic_table(seed))):
        for protocol in every_protocol(task)[1:]:
            if protocol.needs_scores:
                continue
            found = (
                score_object(*object_inputs(seed), protocol.name, batch=protocol.batch)
                if task == "s4"
                else score_semantic(*semantic_inputs(seed), protocol.name)
            )
            entry = score_entry(found).model_copy(update={"batch": found.batch})
            assert list(bound_faults(entry, table)) == [], protocol.name


@pytest.mark.parametrize(
    ("protocol", "batch", "metric", "change"),
    [
        ("avsbench", 1, "J", 0.001),
        ("avsbench", 4, "J", -0.001),
        ("avsbench", 1, "F", -0.001),
        ("avsbench", 4, "F", 0.3),
        ("catr", 1, "F", 0.001),
        ("robust-fpr", 1, "J", 0.001),
        ("davis", None, "J", 0.4),
        ("davis", None, "J&F", 0.001),
        ("davis-semi", None, "J&F", 0.001),
        ("confusion", None, "mIoU", 0.001),
        ("avss-avsbench", None, "mIoU", 0.001),
        ("avss-avsbench", None, "F_noBg", 0.001),
        ("avss-combo", None, "F_reported", -0.001),
        ("avss-combo", None, "classes_seen", 1),
    ],
)
def test_fabricated_scores_are_found(protocol: str, batch: int | None, metric: str, change: float) -> None:
    table = semantic_table(0) if protocol.startswith("avss") else object_table(0)
    found = scored(protocol, batch, 0)
    entry = score_entry(found).model_copy(update={"batch": batch})
    entry.metrics[metric] = float(entry.metrics[metric] or 0) + change
    assert f"{metric} is " in next(bound_faults(entry, table))
    entry.metrics[metric] = None
    assert f"{metric} is None" in next(bound_faults(entry, table))
    other = entry.model_copy(update={"clips": CLIPS + 1})
    assert "clips were scored" in next(bound_faults(other, table))


def test_values_of_a_clip_must_agree() -> None:
    scores = score_object(*object_inputs(0))
    table = scores.per_clip.copy()
    table.loc[3, "J_object"] *= 0.9
    with pytest.raises(ValueError, match="J of a clip contradicts J_object"):
        parse_object_table(csv(table), S4)
    semantic = score_semantic(*semantic_inputs(0))
    table = semantic.per_clip.copy()
    table.loc[3, "mIoU"] += 0.01
    with pytest.raises(ValueError, match="mIoU of a clip is not that of the per-class file"):
        parse_semantic_tables(csv(table), csv(semantic.per_clip_class), AVSS)


def test_a_fabricated_protocol_is_refused_with_its_record(tmp_path: Path) -> None:
    from avsbench_harness.results.folder import read_results
    from avsbench_harness.results.record import write_record

    from .records import score_clips

    record = score_clips(tmp_path, "a", 4)
    (path,) = tmp_path.glob("*.json")
    assert record.scores[0].metrics["J"] != pytest.approx(0.99)
    extra = record.scores[0].model_copy(
        update={"protocol": "avsbench", "batch": 1, "metrics": {"J": 0.99, "F": 0.99}, "intervals": {}}
    )
    path.unlink()
    forged = record.model_copy(update={"scores": [*record.scores, extra]})
    write_record(path, forged, scored("object/1", None, 0))
    score_clips(tmp_path / "genuine", "a", 4)
    (tables,) = (tmp_path / "genuine").glob("*.clips.csv")
    tables.replace(path.with_suffix(".clips.csv"))
    (refused,) = read_results(tmp_path).refused
    assert "avsbench: J is 0.99, but the per-clip file gives 0.9" in refused[1][0]
