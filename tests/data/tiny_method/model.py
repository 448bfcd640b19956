"""The network of the tiny method."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsbench_harness.data.batch import Batch
from avsbench_harness.nn.model import Model
from avsbench_harness.tasks import Task

from .options import Options


@dataclass(frozen=True)
class TinyOutput:
    logits: Tensor


class TinyModel(Model):
    def __init__(self, task: Task, options: Options) -> None:
        super().__init__()
        width = options.width
        self.task = task
        self.backbone = nn.Sequential(nn.Conv2d(3, width, 3, 4, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.gate = nn.Linear(128, width)
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Conv2d(width, task.channels, 3, 1, 1)
        self.poison_step = options.poison_step
        self.steps = 0

    def forward(self, batch: Batch) -> TinyOutput:
        clips, frames, height, width = batch.shape
        features = self.dropout(self.backbone(batch.images.flatten(0, 1)))
        gate = torch.sigmoid(self.gate(batch.audio.flatten(0, 1)))
        logits = self.head(features * gate[:, :, None, None])
        logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
        return TinyOutput(logits.view(clips, frames, -1, height, width))

    def predict(self, batch: Batch) -> Tensor:
        logits = self(batch).logits * batch.valid_frames()[:, :, None, None, None]
        return (
            logits
            if self.task.semantic
            else logits.sigmoid().squeeze(2) * batch.valid_frames()[:, :, None, None]
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        keep = batch.annotated_frames()
        logits, masks = self(batch).logits[keep], batch.ground_truth()[keep]
        self.steps += 1
        if self.steps == self.poison_step:
            logits = logits * float("nan")
        if os.environ.get("AVSB_TEST_STEP_SECONDS"):
            import time

            time.sleep(float(os.environ["AVSB_TEST_STEP_SECONDS"]))
        if self.task.semantic:
            return {"cross_entropy": F.cross_entropy(logits, masks)}
        return {"bce": F.binary_cross_entropy_with_logits(logits.squeeze(1), masks.float())}
