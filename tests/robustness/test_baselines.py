"""Scores of trivial predictions, computed again from the files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.images import read_clip_masks
from avsbench_harness.engine.solutions import solution_file
from avsbench_harness.errors import UsageError
from avsbench_harness.robustness.baselines import baseline_scores, every_object
from avsbench_harness.submission import read_solution
from avsbench_harness.tasks import AVSS, CLASSES, MS3, S4, Task

CLASS_OF = {"rooster": "hen"}


def scores(root: Path, task: Task) -> dict:
    dataset = open_dataset(root, task)
    with read_solution(solution_file(dataset, "test")) as solution:
        return baseline_scores(dataset, "test", solution)


def objects(root: Path, task: Task, clip: str) -> tuple[np.ndarray, list[str]]:
    """(T,224,224) the object of each pixel, counted from 1; and the objects' kinds."""
    path = root / "objects" / task.name / "test" / f"{clip.split('_')[0]}.json"
    kinds = [one["kind"] for one in json.loads(path.read_text())["objects"]]
    return np.asarray(Image.open(path.with_suffix(".png"))).reshape(-1, 224, 224), kinds


def j(predicted: np.ndarray, truth: np.ndarray) -> float:
    """J of a clip; of a frame without object the share of pixels that are not predicted."""
    return float(
        np.mean([(p & t).sum() / (p | t).sum() if t.any() else (~p).mean()
                 for p, t in zip(predicted, truth, strict=True)])
    )  # fmt: skip


@pytest.mark.parametrize("task", [S4, MS3], ids=["s4", "ms3"])
def test_binary_scores(composed: Path, task: Task) -> None:
    found = scores(composed, task)
    expected: dict[str, list[float]] = {"nothing": [], "everything": [], "every object": []}
    for clip in open_dataset(composed, task).clips("test"):
        truth = read_clip_masks(clip, task)[0] > 0
        drawn = objects(composed, task, clip.id)[0] > 0
        expected["nothing"].append(j(np.zeros_like(truth), truth))
        expected["everything"].append(j(np.ones_like(truth), truth))
        expected["every object"].append(j(drawn, truth))
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].metrics["J"] == pytest.approx(np.mean(values), abs=1e-12)
        assert found[name].protocol == "object/1"
    assert found["every object"].metrics["J"] > found["everything"].metrics["J"]
    assert found["nothing"].metrics["F_half"] == 0
    assert found["nothing"].metrics["F"] == found["everything"].metrics["F"] > 0


def test_semantic_scores(composed: Path) -> None:
    found = scores(composed, AVSS)
    assert set(found) == {"nothing", "every object"}
    sums = {name: np.zeros((2, len(CLASSES))) for name in found}
    for clip in open_dataset(composed, AVSS).clips("test"):
        truth = read_clip_masks(clip, AVSS)[0]
        owners, kinds = objects(composed, AVSS, clip.id)
        drawn = np.zeros_like(truth)
        for index, kind in enumerate(kinds, start=1):
            name = CLASS_OF.get(kind, kind)
            drawn[owners == index] = CLASSES.index(name) if name in CLASSES else 0
        for prediction, array in (("nothing", np.zeros_like(truth)), ("every object", drawn)):
            for p, t in zip(array, truth, strict=True):
                for label in np.union1d(p, t):
                    both, either = (p == label) & (t == label), (p == label) | (t == label)
                    sums[prediction][:, label] += both.sum() / either.sum(), 1
    for name, (iou, frames) in sums.items():
        mean = (iou / np.maximum(frames, 1)).mean()
        assert found[name].metrics["mIoU"] == pytest.approx(mean, abs=1e-12)


def test_other_data_have_no_objects(real_s4: Path) -> None:
    found = scores(real_s4, S4)
    assert list(found) == ["nothing", "everything"]
    assert found["nothing"].n == 3


def test_contradictions_are_refused(composed: Path, real_s4: Path, monkeypatch) -> None:
    dataset, other = open_dataset(composed, S4), open_dataset(real_s4, S4)
    with (
        read_solution(solution_file(other, "test")) as solution,
        pytest.raises(UsageError, match="is not the ground truth of the test split"),
    ):
        baseline_scores(dataset, "test", solution)
    monkeypatch.setattr(
        "avsbench_harness.robustness.baselines.read_objects",
        lambda *arguments: np.full((5, 224, 224), 9, np.uint8),
    )
    with pytest.raises(UsageError, match="are not those that its description lists"):
        every_object(dataset, "test", dataset.clips("test")[0])
