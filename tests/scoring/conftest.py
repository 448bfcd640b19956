"""Generated clips for the metrics in ``tests/fixtures/metrics/metrics_golden.json``.

Masks are the highest pixels of smooth random fields; predictions are the same fields with drift and noise.
Only float64 elementwise arithmetic, comparisons and sorts of seeded numbers are used, so the clips do not
depend on library or processor; the CRC-32 checksums in the golden file verify them.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from avsbench_harness.submission import labels_from_scores
from avsbench_harness.testing.seeded import seeded_input

DATA = Path(__file__).parents[1] / "fixtures"
SEED = 2101
SIDE = 224
CLASSES = 71

AREAS = {
    "typical_b": 0.06,
    "full_frame": 1.0,
    "below_half": 0.12,
    "huge_logits": 0.3,
    "continuous_b": 0.04,
    "half_edges": 0.25,
}
AVSS_FRAMES = {"v1m_two": 5, "v1s_one": 5, "v1m_all_background": 5}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return seeded_input(SEED, name, shape).numpy().astype(np.float64)


def smooth(name: str, frames: int, cells: int = 7) -> np.ndarray:
    """(frames,224,224): bilinear interpolation of a coarse random grid that varies between frames."""
    grid = draw(name, (frames + 1, cells + 1, cells + 1))
    grid = grid[:1] + 0.5 * grid[1:]
    position = (np.arange(SIDE, dtype=np.float64) + 0.5) / SIDE * cells
    cell = position.astype(np.int64)
    weight = position - cell
    down = grid[:, cell] * (1.0 - weight)[:, None] + grid[:, cell + 1] * weight[:, None]
    return down[:, :, cell] * (1.0 - weight) + down[:, :, cell + 1] * weight


def highest(field: np.ndarray, area: float) -> tuple[np.ndarray, np.ndarray]:
    """The fraction ``area`` of pixels with the highest values in each frame, and their thresholds (F,1,1)."""
    pixels = SIDE * SIDE
    count = round(area * pixels)
    ranked = np.sort(field.reshape(len(field), -1), axis=1)
    level = ranked[:, pixels - count - 1] if count < pixels else ranked[:, 0] - 1.0
    return field > level[:, None, None], level[:, None, None]


@dataclass
class ObjectCase:
    masks: np.ndarray  # (5,H,W) uint8
    logits: np.ndarray  # (5,H,W) float32

    @property
    def prob(self) -> np.ndarray:
        return sigmoid(self.logits)

    def scores(self, recipe: str) -> np.ndarray:
        """(5,2,H,W) scores of background and object, as probabilities or logits."""
        if recipe == "logit":
            return np.stack([np.zeros_like(self.logits), self.logits], axis=1)
        p = (1.0 / (1.0 + np.exp(-self.logits.astype(np.float64)))).astype(np.float32)
        return np.stack([np.float32(1.0) - p, p], axis=1)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.float32(1) / (np.float32(1) + np.exp(-logits))


def make_object_case(name: str, exact: bool) -> ObjectCase:
    field, drift = smooth(f"{name}:gt", 5), smooth(f"{name}:drift", 5, cells=11)
    grain = draw(f"{name}:grain", (5, SIDE, SIDE))
    mask, level = highest(field, AREAS.get(name, 0.18))
    logits = 5.0 * ((field - level) + 0.35 * drift + 0.2 * grain)
    mask, logits = change_object_case(name, mask, logits, drift, grain)
    if name == "huge_logits":
        final = np.where(logits > 0.0, 100.0, -100.0)
    elif exact:
        final = np.clip(np.round(logits * 64.0), -768, 768) / 64.0
    else:
        final = np.clip(logits, -12.0, 12.0)
    return ObjectCase(mask.astype(np.uint8), final.astype(np.float32))


def change_object_case(
    name: str, mask: np.ndarray, logits: np.ndarray, drift: np.ndarray, grain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Change mask and logits to the case of the given name."""
    if name == "some_empty":
        mask[[1, 3]] = False
    elif name.startswith("all_empty"):
        mask[:] = False
        if name == "all_empty_clean":
            logits = -1.0 - np.abs(logits)
    elif name == "full_frame":
        logits = 4.0 * (drift + 0.3 * grain + 0.5)
        logits[3], logits[4] = 6.0, -6.0
    elif name == "below_half":
        logits = -6.0 + 0.4 * np.clip(logits, -12.0, 12.0)
    elif name in ("zero_logits", "constant_positive"):
        logits = np.full_like(logits, 0.0 if name == "zero_logits" else 1.5)
    elif name in ("perfect", "inverted"):
        logits = np.where(mask, 8.0, -8.0) * (1.0 if name == "perfect" else -1.0)
    elif name == "mixed_frames":
        mask[0], mask[1], mask[2] = False, True, False
        mask[2, 100, 57] = True
        logits[4] = np.where(mask[4], 0.0, -3.0)
    elif name == "half_edges":
        rows, columns = np.indices(mask.shape[1:])
        even = (rows + columns) % 2 == 0
        outside = np.where(drift > 1.0, 0.0, -2.0)
        logits = np.where(mask, np.where(even, 0.0, 2.0), outside)
    elif name == "continuous_b":
        logits = 1.2 * logits - 0.5
    return mask, logits


@dataclass
class AvssCase:
    truth: np.ndarray  # (t,H,W) uint8
    labels: np.ndarray  # (t,H,W) uint8


def paint(name: str, frames: int, parts: list[tuple[int, float]]) -> np.ndarray:
    """Random regions of classes; later classes overwrite earlier ones."""
    labels = np.zeros((frames, SIDE, SIDE), np.uint8)
    for i, (cls, area) in enumerate(parts):
        labels[highest(smooth(f"{name}:part{i}", frames, cells=5), area)[0]] = cls
    return labels


def disturbed(name: str, truth: np.ndarray, area: float) -> np.ndarray:
    """The ground truth shifted by 3 rows and 5 columns, with a hole."""
    hole = highest(smooth(f"{name}:hole", len(truth), cells=9), area)[0]
    return np.where(hole, 0, np.roll(truth, (3, 5), axis=(1, 2))).astype(np.uint8)


def make_avss_case(name: str) -> AvssCase:
    t = AVSS_FRAMES.get(name, 10)
    background = np.zeros((t, SIDE, SIDE), np.uint8)
    if name == "v2_many":
        truth = paint(name, t, [(3, 0.2), (17, 0.1), (42, 0.08), (70, 0.12)])
        truth[7:][truth[7:] == 42] = 0
        labels = disturbed(name, truth, 0.1)
        labels[2:5][labels[2:5] == 17] = 18
    elif name == "v2_prediction_only":
        truth, labels = background, paint(name, t, [(55, 0.15), (70, 0.03)])
        labels[[0, 4]] = 0
    elif name == "v2_gt_only":
        truth, labels = paint(name, t, [(5, 0.2), (69, 0.05)]), background
    elif name == "v1m_two":
        truth = paint(name, t, [(8, 0.25), (70, 0.1)])
        labels = disturbed(name, truth, 0.15)
        labels[4] = 0
    elif name == "v1s_one":
        truth = paint(name, t, [(33, 0.3)])
        truth[4] = 33
        labels = disturbed(name, truth, 0.05)
    elif name == "v2_perfect":
        truth = paint(name, t, [(1, 0.2), (70, 0.2), (29, 0.02)])
        labels = truth
    elif name == "v1m_all_background":
        truth, labels = background, background
    else:
        truth = paint(name, t, [(12, 0.2), (64, 0.15), (70, 0.05)])
        labels = labels_from_scores(SCORES[name](name, truth))
    return AvssCase(truth, labels)


def soft_scores(name: str, truth: np.ndarray) -> np.ndarray:
    coarse = seeded_input(SEED, f"{name}:scores", (len(truth), CLASSES, 28, 28)).numpy()
    scores = np.kron(coarse, np.ones((1, 1, 8, 8), np.float32))
    return scores + 2 * (truth[:, None] == np.arange(CLASSES)[:, None, None]).astype(np.float32)


def near_ties(name: str, truth: np.ndarray) -> np.ndarray:
    """Classes 12 and 64 tie in frames 0-4; in 5-9 class 64 is larger by one bit, which the softmax loses."""
    scores = np.zeros((len(truth), CLASSES, SIDE, SIDE), np.float32)
    scores[:5, [12, 64]] = 3.0
    scores[5:, 12] = 0.01
    scores[5:, 64] = np.nextafter(np.float32(0.01), np.float32(1.0))
    return scores


SCORES = {"v2_soft_scores": soft_scores, "near_ties": near_ties}


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    return json.loads((DATA / "metrics" / "metrics_golden.json").read_text())


@pytest.fixture(scope="session")
def object_case(golden: dict[str, Any]) -> Callable[[str], ObjectCase]:
    @functools.cache
    def case(name: str) -> ObjectCase:
        expected = golden["object"]["cases"][name]
        made = make_object_case(name, expected["exact"])
        assert zlib.crc32(made.masks.tobytes()) == expected["crc32_gt_u8"]
        assert zlib.crc32(made.logits.tobytes()) == expected["crc32_logits_f32"]
        return made

    return case


@pytest.fixture(scope="session")
def avss_case(golden: dict[str, Any]) -> Callable[[str], AvssCase]:
    @functools.cache
    def case(name: str) -> AvssCase:
        expected = golden["avss"]["cases"][name]
        made = make_avss_case(name)
        assert made.truth.shape == (expected["real_frames"], SIDE, SIDE)
        assert zlib.crc32(made.truth.tobytes()) == expected["crc32_gt_u8"]
        assert zlib.crc32(made.labels.tobytes()) == expected["crc32_pred_u8"]
        return made

    return case


@dataclass
class Sequence:
    predicted: np.ndarray  # (T,480,854) bool
    truth: np.ndarray
    expected: dict[str, Any]

    def at_224(self) -> tuple[np.ndarray, np.ndarray]:
        """Prediction and ground truth (T,224,224) uint8, resized by PIL's nearest neighbour."""
        return tuple(
            np.stack(
                [
                    np.array(Image.fromarray(mask).resize((SIDE, SIDE), Image.Resampling.NEAREST))
                    for mask in masks
                ]
            ).astype(np.uint8)
            for masks in (self.predicted, self.truth)
        )  # type: ignore[return-value]


@pytest.fixture(scope="session")
def davis_sequence() -> Callable[[str], Sequence]:
    expected = json.loads((DATA / "davis" / "expected.json").read_text())["sequences"]

    @functools.cache
    def sequence(name: str) -> Sequence:
        def masks(kind: str) -> np.ndarray:
            files = sorted((DATA / "davis" / kind / name).glob("*.png"))
            return np.stack([np.array(Image.open(file)) > 0 for file in files])

        return Sequence(masks("pred_osvos"), masks("gt"), expected[name])

    return sequence
