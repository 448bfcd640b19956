"""The network of MyMethod."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.nn.backbone import build_backbone
from avsbench_harness.nn.frames import restore_frames, select_frames
from avsbench_harness.nn.model import Model
from avsbench_harness.tasks import Task

from .loss import mask_loss
from .options import Options

#: Channels of a VGGish embedding.
AUDIO_DIM = 128
#: Stride of the coarsest feature map: the sides of an image must be multiples of it.
STRIDE = 32


@dataclass(frozen=True)
class MyMethodOutput:
    """Raw outputs; padded frames are zero.

    Attributes:
        logits: (B,T,K,H,W), K = 1 for s4 and ms3 (before the sigmoid), 71 for avss (before the softmax).
    """

    logits: Tensor


class MyMethodModel(Model):
    """Backbone features, summed over the levels, with channel weights from the audio of the frame.

    Frames are independent of each other, except for batch normalisation in training.
    """

    def __init__(self, task: Task, backbone: str, options: Options) -> None:
        """Initialise with random weights.

        Args:
            task: determines the number of output channels.
            backbone: ``r50``, ``pvt``, ``swin_t`` or a timm name.
            options: see :class:`.options.Options`.
        """
        super().__init__()
        self.task = task
        self.options = options
        self.backbone = build_backbone(
            backbone, pretrained=options.pretrained, drop_path_rate=options.drop_path_rate
        )
        self.projections = nn.ModuleList(
            nn.Conv2d(channels, options.dim, 1) for channels in self.backbone.channels
        )
        self.audio_weights = nn.Linear(AUDIO_DIM, options.dim)
        self.head = nn.Conv2d(options.dim, task.channels, 3, padding=1)

    def forward(self, batch: Batch) -> MyMethodOutput:
        """Return the logits of every frame.

        Raises:
            UsageError: the images' sides are not multiples of 32.
        """
        valid = batch.valid_frames()
        return MyMethodOutput(restore_frames(self._logits(batch, valid), valid))

    def predict(self, batch: Batch) -> Tensor:
        """Return probabilities of sound (B,T,H,W), or class logits (B,T,71,H,W); padded frames are zero."""
        output: MyMethodOutput = self(batch)
        if self.task.semantic:
            return output.logits
        return output.logits[:, :, 0].sigmoid() * batch.valid_frames()[..., None, None]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``mask``, averaged over the annotated frames."""
        frames = batch.annotated_frames()
        if not frames.any():
            return {"mask": self.zero_loss()}
        logits = self._logits(batch, frames)
        return {"mask": mask_loss(logits, batch.ground_truth()[frames], self.options.dice_weight)}

    def _logits(self, batch: Batch, frames: Tensor) -> Tensor:
        """Return the logits (N,K,H,W) of the N frames marked in ``frames`` (B,T)."""
        self.check_sides(batch, STRIDE)
        size = batch.shape[2:]
        if not frames.any():
            return batch.images.new_zeros(0, self.task.channels, *size)
        levels = self.maps(batch, frames)
        finest = levels[0].shape[-2:]
        projected = [
            F.interpolate(project(level), size=finest, mode="bilinear", align_corners=False)
            for project, level in zip(self.projections, levels, strict=True)
        ]
        features = F.relu(torch.stack(projected).sum(dim=0))
        weights = self.audio_weights(select_frames(batch.audio, frames)).sigmoid()
        logits = self.head(features * weights[:, :, None, None])
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
