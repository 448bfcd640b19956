"""CATR as released: the path of a training clip to the backbone, compared with the published loader's steps.

These are, in the order of the loader: affine map (nearest) and flip of Pillow images of 224 pixels,
normalisation, bilinear enlargement to 448 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from avsbench_methods.catr import CATR
from PIL import Image
from torchvision.transforms import InterpolationMode, functional

from avsbench_harness.data import loader
from avsbench_harness.data.loader import ClipDataset, collate
from avsbench_harness.data.transforms import Pixels
from avsbench_harness.recipe.resolve import resolve
from avsbench_harness.tasks import S4

from .helpers import build

#: Rotation in degrees, factor and shear in degrees.
ANGLE, FACTOR, SHEAR = 13.0, 0.7, -6.0
#: Values that may differ, as Pillow and torchvision round positions between two pixels differently.
ROUNDING = 0.01


@dataclass
class Draws:
    """A random generator that returns the affine map above and flips."""

    limits: list[tuple[float, float]] = field(default_factory=list)

    def uniform(self, low: float, high: float) -> float:
        self.limits.append((low, high))
        wanted = {(-20, 20): ANGLE, (0.5, 1.0): FACTOR, (-10, 10): SHEAR}
        return wanted.get((low, high), 0.0)

    def random(self) -> float:
        return 0.0


def moved(image: Image.Image) -> Image.Image:
    """Apply torchvision's affine map of Pillow images, and a flip."""
    nearest = InterpolationMode.NEAREST
    turned = functional.affine(image, ANGLE, [0, 0], FACTOR, [SHEAR, 0.0], interpolation=nearest)
    return functional.hflip(turned)


@torch.no_grad()
def test_frames_are_augmented_at_224_pixels_and_enlarged_after_normalisation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = np.random.default_rng(0)
    frames = draw.integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    masks = draw.integers(0, 2, (2, 224, 224), dtype=np.uint8)
    pixels = Pixels(torch.from_numpy(frames).permute(0, 3, 1, 2), torch.from_numpy(masks))
    recipe, draws = resolve(CATR(), S4, "pvt"), Draws()
    clip = SimpleNamespace(id="clip", masks=[None, None])
    source: Any = SimpleNamespace(clips=[clip], task=S4, size=recipe.image_size, read=lambda index: pixels)
    monkeypatch.setattr(loader, "generator", lambda *_: draws)
    audio = {"clip": np.zeros((5, 128), np.float32)}
    batch = collate([ClipDataset(source, audio, augment=recipe.augment)[0, 0]])
    assert draws.limits == [(-20, 20), (0, 0), (0, 0), (0.5, 1.0), (-10, 10), (0, 0)]

    seen: list[torch.Tensor] = []
    model = build(**recipe.options)
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    prediction = model.predict(batch)
    assert prediction.shape == (1, 5, 224, 224)
    expected = torch.stack([
        functional.normalize(
            functional.to_tensor(moved(Image.fromarray(frame))), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        )
        for frame in frames
    ])  # fmt: skip
    expected = F.interpolate(expected, size=(448, 448), mode="bilinear", align_corners=False)
    assert seen[0].shape == expected.shape
    assert ((seen[0] - expected).abs() > 1e-4).float().mean() < ROUNDING
    truth = np.stack([np.asarray(moved(Image.fromarray(mask))) for mask in masks])
    assert (batch.ground_truth()[0, :2].numpy() != truth).mean() < ROUNDING
