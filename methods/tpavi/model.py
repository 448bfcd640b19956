"""TPAVI's network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.nn.backbone import build_backbone
from avsbench_harness.nn.dilated import DilatedSum
from avsbench_harness.nn.model import Model
from avsbench_harness.tasks import Task
from avsbench_harness.weights.strict import load_renamed
from avsbench_harness.weights.timm_names import STRIDES

from . import upstream
from .decoder import Decoder
from .interaction import Addition, Interaction
from .loss import matching_loss, segmentation_loss
from .options import Options

#: Stride of the coarsest feature map: the sides of an image must be multiples of it.
STRIDE = 32
#: Backbones of the published checkpoints.
PUBLISHED = ("r50", "pvt")
#: Stochastic depth with which the published code trains.
DROP_PATH_RATES = {"pvt": 0.1}


@dataclass(frozen=True)
class TPAVIOutput:
    """Raw outputs; frames that do not exist are zeros.

    Attributes:
        logits: (B,T,K,H,W), K = 1 for s4 and ms3 (before the sigmoid), 71 for avss (before the softmax).
        features: four levels (B,T,dim,H/s,W/s), s = 4, 8, 16, 32, after the interaction, which the matching
            loss looks at; with ``inplace_relu`` they went through a ReLU.
        sounds: the projected sound (B,T,dim) of each level; zeros where a level hears nothing.
    """

    logits: Tensor
    features: tuple[Tensor, ...]
    sounds: tuple[Tensor, ...]


class TPAVIModel(Model):
    """TPAVI (Zhou et al., ECCV 2022); what the release and the paper differ in are options.

    Frames see each other inside windows of ``options.window`` frames; clips are independent, except through
    batch normalisation in training and by the matching loss ``vv``.
    """

    def __init__(self, task: Task, backbone: str, options: Options) -> None:
        """Random weights.

        Args:
            task: decides the number of output channels and the loss.
            backbone: ``r50``, ``pvt`` or a timm name.
            options: of :meth:`.options.Options.of`, so that none is left open.
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
        """Logits of every frame, and what the matching loss needs.

        Raises:
            UsageError: the images' sides are not multiples of 32.
        """
        valid = batch.valid_frames()
        logits, levels, sounds = self._segment(batch, valid)
        return TPAVIOutput(
            _restore(logits, valid),
            tuple(_restore(level, valid) for level in levels),
            tuple(_restore(sound, valid) for sound in sounds),
        )

    def _segment(self, batch: Batch, frames: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Logits (N,K,H,W), four levels (N,dim,h,w) and sounds (N,dim) of N existing frames.

        Args:
            batch: all frames, which the marked ones may read from.
            frames: (B,T) bool, which ones to decode: each is decoded by itself.
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
        for project, interact, maps in zip(
            self.projections, self.interactions, self._backbone_maps(batch.images, valid), strict=True
        ):
            pixels = _restore(project(maps).permute(0, 2, 3, 1), valid)  # (B,T,h,w,dim)
            if isinstance(interact, nn.Identity):
                sound = pixels.new_zeros(*valid.shape, self.options.dim)
            else:
                pixels, sound = interact(pixels, audio, valid)
            level = _select(pixels, frames).permute(0, 3, 1, 2)
            levels.append(F.relu(level) if self.options.inplace_relu else level)
            sounds.append(_select(sound, frames))
        return self.decoder(levels), levels, sounds

    def _backbone_maps(self, images: Tensor, valid: Tensor) -> list[Tensor]:
        """Four maps (N,C,h,w) of the N frames that exist, from images (B,T,3,H,W)."""
        if self.training and self.options.padding_in_norms and not valid.all():
            # In the published code the batch normalisations see the frames that do not exist, too.
            return [maps[valid.flatten()] for maps in self.backbone(images.flatten(0, 1))]
        maps: list[Tensor] = self.backbone(_select(images, valid))
        return maps

    def predict(self, batch: Batch) -> Tensor:
        """Probability of sound (B,T,H,W), or for avss class logits (B,T,71,H,W); zeros in missing frames."""
        output: TPAVIOutput = self(batch)
        if self.task.semantic:
            return output.logits
        return output.logits[:, :, 0].sigmoid() * batch.valid_frames()[..., None, None]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """``iou`` (cross-entropy over the annotated frames), and ``avm`` unless the option says ``none``."""
        options, annotated, truth = self.options, batch.annotated_frames(), batch.ground_truth()
        # The published matching loss needs no truth and takes all frames; only avss keeps to the annotated
        # ones. Frames that no loss looks at are read by the others, but not decoded.
        matched = options.avm != "none" and not self.task.semantic
        frames = batch.valid_frames() if matched else annotated
        if not batch.valid_frames().any():  # zeros that reach every parameter
            zero = torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum() * 0.0
            return dict.fromkeys(("iou",) if options.avm == "none" else ("iou", "avm"), zero)
        logits, levels, sounds = self._segment(batch, frames)
        terms = {"iou": segmentation_loss(_select(logits, annotated[frames]), truth[annotated])}
        if options.avm != "none":
            terms["avm"] = options.avm_weight * matching_loss(logits, levels, sounds, options)
        return terms

    def loss_counts(self, batch: Batch) -> dict[str, Tensor | None]:
        """``avm`` is averaged over the frames that it looks at, or summed."""
        if self.options.avm_sum:
            return {"avm": None}
        return {"avm": (batch.annotated_frames() if self.task.semantic else batch.valid_frames()).sum()}

    def load_upstream(self, state: Mapping[str, Tensor]) -> None:
        """Load a published checkpoint of AVSBench's baseline (r50 and pvt only)."""
        if self.backbone_name not in PUBLISHED:
            raise UsageError(
                f"TPAVI has no published checkpoints with the backbone {self.backbone_name}; "
                f"there are some with {' and '.join(PUBLISHED)}."
            )
        load_renamed(
            self, state, upstream.rename, what=f"tpavi for {self.task.name} with {self.backbone_name}"
        )


def _fusion(options: Options, stage: int) -> nn.Module:
    """What lets a level hear; an ``Identity`` where it does not."""
    if options.fusion == "none" or stage not in options.fusion_stages:
        return nn.Identity()
    if options.fusion == "add":
        return Addition(options.dim, bool(options.audio_bias))
    return Interaction(
        options.dim, options.window, bool(options.audio_bias), padding_in_norm=options.padding_in_norms
    )


def _select(values: Tensor, frames: Tensor) -> Tensor:
    """(N,...) at the N places that ``frames`` (B,T) or (M,) marks, from ``values`` (B,T,...) or (M,...)."""
    return values.flatten(0, frames.dim() - 1) if frames.all() else values[frames]


def _restore(values: Tensor, frames: Tensor) -> Tensor:
    """(B,T,...) with the rows of ``values`` (N,...) at the N frames that ``frames`` marks, else zeros."""
    if len(values) == frames.numel():
        return values.unflatten(0, frames.shape)
    restored = values.new_zeros(*frames.shape, *values.shape[1:])
    restored[frames] = values
    return restored
