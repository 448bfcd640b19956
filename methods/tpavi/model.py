"""TPAVI's network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.nn.backbone import build_backbone
from avsbench_harness.nn.dilated import DilatedSum
from avsbench_harness.nn.frames import restore_frames, select_frames
from avsbench_harness.nn.model import Model
from avsbench_harness.tasks import Task
from avsbench_harness.weights.timm_names import STRIDES

from . import upstream
from .decoder import Decoder
from .interaction import Addition, Interaction
from .loss import matching_loss, segmentation_loss
from .options import Options

#: Stride of the coarsest feature map: the sides of an image must be multiples of it.
STRIDE = 32
#: Stochastic depth in the published code.
DROP_PATH_RATES = {"pvt": 0.1}


@dataclass(frozen=True)
class TPAVIOutput:
    """Raw outputs; padded frames are zero.

    Attributes:
        logits: (B,T,K,H,W), K = 1 for s4 and ms3 (before the sigmoid), 71 for avss (before the softmax).
        features: four levels (B,T,dim,H/s,W/s), s = 4, 8, 16, 32, after the interaction, the inputs of the
            matching loss; after a ReLU with ``inplace_relu``.
        sounds: the projected audio (B,T,dim) of each level; zeros for levels without fusion.
    """

    logits: Tensor
    features: tuple[Tensor, ...]
    sounds: tuple[Tensor, ...]


class TPAVIModel(Model):
    """TPAVI (Zhou et al., ECCV 2022); differences between released code and paper are options.

    Frames attend to each other within windows of ``options.window`` frames; clips are independent, except
    for batch normalisation in training and the matching loss ``vv``.
    """

    def __init__(self, task: Task, backbone: str, options: Options) -> None:
        """Initialise with random weights.

        Args:
            task: determines the number of output channels and the loss.
            backbone: ``r50``, ``pvt`` or a timm name.
            options: complete, as returned by :meth:`.options.Options.of`.
        """
        super().__init__()
        self.task = task
        self.options = options
        self.backbone_name = backbone
        rate = options.drop_path_rate
        self.backbone = build_backbone(
            backbone,
            pretrained=options.pretrained,
            drop_path_rate=DROP_PATH_RATES.get(backbone) if rate is None else rate,
        )
        dim = options.dim
        self.projections = nn.ModuleList(DilatedSum(size, dim) for size in self.backbone.channels)
        self.interactions = nn.ModuleList(_fusion(options, stage) for stage in (1, 2, 3, 4))
        self.decoder = Decoder(dim, task.channels, options.inplace_relu)

    def forward(self, batch: Batch) -> TPAVIOutput:
        """Return the logits of every frame, and the inputs of the matching loss.

        Raises:
            UsageError: the images' sides are not multiples of 32.
        """
        valid = batch.valid_frames()
        logits, levels, sounds = self._segment(batch, valid)
        return TPAVIOutput(
            restore_frames(logits, valid),
            tuple(restore_frames(level, valid) for level in levels),
            tuple(restore_frames(sound, valid) for sound in sounds),
        )

    def _segment(self, batch: Batch, frames: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return logits (N,K,H,W), four levels (N,dim,h,w) and projected audio (N,dim) of N valid frames.

        Args:
            batch: all frames, which the decoded ones may attend to.
            frames: (B,T) bool, the frames to decode; each is decoded independently.
        """
        height, width = batch.shape[2:]
        self.check_sides(batch, STRIDE)
        valid = batch.valid_frames()
        if not valid.any():
            dim, zeros = self.options.dim, batch.images.new_zeros
            levels = [zeros(0, dim, height // stride, width // stride) for stride in STRIDES]
            return zeros(0, self.task.channels, height, width), levels, [zeros(0, dim) for _ in levels]
        audio = batch.audio.masked_fill(~valid[..., None], 0)
        levels, sounds = [], []
        projected = batch.once("projections", lambda: self._projected(batch, valid))
        for interact, maps in zip(self.interactions, projected, strict=True):
            pixels = restore_frames(maps.permute(0, 2, 3, 1), valid)  # (B,T,h,w,dim)
            if isinstance(interact, nn.Identity):
                sound = pixels.new_zeros(*valid.shape, self.options.dim)
            else:
                pixels, sound = interact(pixels, audio, valid)
            level = select_frames(pixels, frames).permute(0, 3, 1, 2)
            levels.append(F.relu(level) if self.options.inplace_relu else level)
            sounds.append(select_frames(sound, frames))
        return self.decoder(levels), levels, sounds

    def _projected(self, batch: Batch, valid: Tensor) -> list[Tensor]:
        """Return four levels (N,dim,h,w) of the N valid frames."""
        maps = self._backbone_maps(batch, valid)
        return [project(level) for project, level in zip(self.projections, maps, strict=True)]

    def _backbone_maps(self, batch: Batch, valid: Tensor) -> list[Tensor]:
        """Return four maps (N,C,h,w) of the N valid frames."""
        if self.training and self.options.padding_in_norms and not valid.all() and not batch.features:
            # In the published code padded frames count in the batch statistics.
            return [maps[valid.flatten()] for maps in self.backbone(batch.images.flatten(0, 1))]
        return self.maps(batch, valid)

    def predict(self, batch: Batch) -> Tensor:
        """Return probabilities of sound (B,T,H,W), or class logits (B,T,71,H,W); padded frames are zero."""
        output: TPAVIOutput = self(batch)
        if self.task.semantic:
            return output.logits
        return output.logits[:, :, 0].sigmoid() * batch.valid_frames()[..., None, None]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``iou`` (cross-entropy over the annotated frames), and ``avm`` unless it is ``none``."""
        options, annotated, truth = self.options, batch.annotated_frames(), batch.ground_truth()
        # The published matching loss needs no ground truth and uses all frames, for avss the annotated ones.
        # Frames without a loss are attended to by others, but not decoded.
        matched = options.avm != "none" and not self.task.semantic
        frames = batch.valid_frames() if matched else annotated
        if not batch.valid_frames().any():
            return dict.fromkeys(("iou",) if options.avm == "none" else ("iou", "avm"), self.zero_loss())
        logits, levels, sounds = self._segment(batch, frames)
        terms = {"iou": segmentation_loss(select_frames(logits, annotated[frames]), truth[annotated])}
        if options.avm != "none":
            terms["avm"] = options.avm_weight * matching_loss(logits, levels, sounds, options)
        return terms

    def loss_counts(self, batch: Batch) -> dict[str, Tensor | None]:
        """Return the number of frames that ``avm`` averages over; ``None`` if it is a sum."""
        if self.options.avm_sum:
            return {"avm": None}
        return {"avm": (batch.annotated_frames() if self.task.semantic else batch.valid_frames()).sum()}

    def load_upstream(self, state: Mapping[str, Tensor]) -> None:
        """Load published weights of the AVSBench baseline (r50 and pvt only)."""
        self.load_published(state, upstream.rename, backbone=self.backbone_name, backbones=upstream.BACKBONES)


def _fusion(options: Options, stage: int) -> nn.Module:
    """Return the audio fusion of a level, an ``Identity`` for levels without."""
    if options.fusion == "none" or stage not in options.fusion_stages:
        return nn.Identity()
    if options.fusion == "add":
        return Addition(options.dim, bool(options.audio_bias))
    return Interaction(
        options.dim, options.window, bool(options.audio_bias), padding_in_norm=options.padding_in_norms
    )
