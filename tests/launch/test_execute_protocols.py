"""Execution of a run: protocols whose masks have another size than the submission."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from avsbench_harness.engine.run import Run
from avsbench_harness.engine.solutions import solution_file
from avsbench_harness.launch.execute import execute, predict
from avsbench_harness.method import TrainingSummary
from avsbench_harness.submission import THRESHOLDS, decode, read_solution, read_submission
from avsbench_harness.tasks import Split


def published_scores(run: Run, split: Split, file: Path, clips_per_batch: int = 2) -> dict[str, float]:
    """J and F of AVSegFormer's script, step by step, from the predictions at 512 and enlarged masks."""
    j, f = [], []
    with read_submission(file) as predicted, read_solution(solution_file(run.dataset, split)) as truth:
        assert predicted.header.size == (512, 512)
        ids = [clip.id for clip in truth.header.clips]
        for first in range(0, len(ids), clips_per_batch):
            batch = ids[first : first + clips_per_batch]
            p = np.concatenate([decode(np.asarray(predicted.read(clip))) for clip in batch])
            g = np.concatenate([enlarge(np.asarray(truth.read(clip))) for clip in batch])
            b = p > 0.5
            overlap = [
                (b_ & g_).sum() / (b_ | g_).sum() if g_.any() else (~b_).mean()
                for b_, g_ in zip(b, g, strict=True)
            ]
            j.append(np.mean(overlap))
            curves = [curve(p_, g_) for p_, g_ in zip(p, g, strict=True) if g_.any()]
            f.append(np.mean(curves, axis=0).max() if curves else 0.0)
    return {"J": float(np.mean(j)), "F": float(np.mean(f))}


def enlarge(masks: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Masks (T,224,224) at 512 x 512, nearest neighbour of PIL."""
    nearest = Image.Resampling.NEAREST
    return np.stack([np.asarray(Image.fromarray(mask).resize((512, 512), nearest)) for mask in masks]) > 0


def curve(p: NDArray[np.float32], g: NDArray[np.bool_]) -> NDArray[np.float64]:
    """F with beta^2 = 0.3 at the 255 thresholds."""
    values = []
    for threshold in THRESHOLDS:
        above = p >= threshold
        hits = (above & g).sum()
        values.append(1.3 * hits / (0.3 * g.sum() + above.sum()))
    return np.array(values)


def test_protocols_at_512_score_the_network_output_at_512(avsb, planned, tmp_path: Path) -> None:
    run: Run = planned(tmp_path, "epochs=1", "protocols=[avsegformer, avsbench]")
    record = execute(run)
    usual = run.submission_file("test")
    large = usual.with_stem(f"{usual.stem}-512")
    scores = {entry.protocol: entry for entry in record.scores}
    assert list(scores) == ["object/1", "avsbench", "avsegformer"]
    expected = published_scores(run, "test", large)
    for name, value in expected.items():
        assert scores["avsegformer"].metrics[name] == pytest.approx(value, abs=1e-6)

    results = tmp_path / "results"
    assert avsb("results", "validate", "--results", results).out == "1 records, 0 measurements, 0 faults\n"
    genuine = run.record_file.read_text()
    values = json.loads(genuine)
    values["scores"][2]["metrics"]["J"] = 0.4321
    run.record_file.write_text(json.dumps(values))
    wrong = avsb("results", "validate", "--results", results).out
    assert "avsegformer (all): J is 0.4321, but the submission gives" in wrong

    run.record_file.unlink()
    assert avsb("score", usual, "--out", tmp_path).code == 0
    assert json.loads(run.record_file.read_text())["scores"] == json.loads(genuine)["scores"]
    run.record_file.unlink()
    large.unlink()
    missing = avsb("score", usual, "--out", tmp_path)
    assert missing.code == 4
    assert "need the predictions at 512 x 512" in missing.err


def test_validation_under_a_protocol_at_512(planned, tmp_path: Path) -> None:
    select = ("select.protocol=avsegformer", "select.metric=F")
    run: Run = planned(tmp_path, "epochs=2", "optimizer.lr=0.05", "protocols=[avsegformer]", *select)
    summary: TrainingSummary = run.method.train(run)
    usual = predict(run, "val")
    found = max(summary.validations, key=lambda validation: validation.metrics["F"] or 0)
    assert found.step == summary.selected_step
    expected = published_scores(run, "val", usual.with_stem(f"{usual.stem}-512"))
    assert found.metrics == pytest.approx(expected, abs=1e-6)
