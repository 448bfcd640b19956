"""AVSegFormer's network, as released."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.nn.backbone import build_backbone
from avsbench_harness.nn.deformable import MultiScaleDeformableAttention
from avsbench_harness.nn.model import Model
from avsbench_harness.nn.upstream import load_renamed
from avsbench_harness.tasks import Task

from . import upstream
from .loss import mix_loss, segmentation_loss
from .masks import MaskFeature, MaskHead, Mixer, projection
from .options import Options
from .transformer import PixelEncoder, QueryDecoder, QueryGenerator

#: Channels of a VGGish embedding.
AUDIO_DIM = 128
#: Stride of the coarsest feature map: the sides of an image must be multiples of it.
STRIDE = 32
#: Backbones of the published checkpoints.
PUBLISHED = ("r50", "pvt")
#: Stochastic depth with which the published code trains.
DROP_PATH_RATES = {"pvt": 0.1}


@dataclass(frozen=True)
class AVSegFormerOutput:
    """Raw outputs; frames that do not exist are zeros.

    Attributes:
        logits: (B,T,K,H,W), K = 1 for s4 and ms3 (before the sigmoid), 71 for avss (before the softmax).
        mask_feature: (B,T,dim,H/4,W/4) after the mixer, which the mixing loss looks at.
    """

    logits: Tensor
    mask_feature: Tensor


class AVSegFormerModel(Model):
    """AVSegFormer (Gao et al., AAAI 2024) as its authors released it; what differs is in the model card.

    Frames are independent of each other, except through batch normalisation in training.
    """

    def __init__(self, task: Task, backbone: str, options: Options) -> None:
        """Random weights.

        Args:
            task: decides the number of output channels and the loss.
            backbone: ``r50``, ``pvt``, ``swin_t`` or a timm name.
            options: see :class:`.options.Options`.
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
        self.audio_projection = nn.Linear(AUDIO_DIM, dim)
        self.input_projections = nn.ModuleList(projection(size, dim) for size in self.backbone.channels)
        self.encoder = PixelEncoder(options)
        self.query_generator = QueryGenerator(options)
        self.decoder_queries = (
            nn.Parameter(torch.empty(options.queries, dim)) if options.learnable_queries else None
        )
        self.decoder = QueryDecoder(options)
        self.mask_feature = MaskFeature(dim)
        self.mixer = Mixer(dim)
        self.mask_head = MaskHead(options, task.channels)
        self._initialise()

    def _initialise(self) -> None:
        """Xavier-uniform for every matrix and kernel of the head, queries included (published code)."""
        given = {
            id(parameter)
            for module in (self.backbone, self.audio_projection)
            for parameter in module.parameters()
        }
        for parameter in self.parameters():
            if parameter.dim() > 1 and id(parameter) not in given:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, MultiScaleDeformableAttention):
                module.reset_parameters()
        nn.init.normal_(self.encoder.level_embedding)

    def forward(self, batch: Batch) -> AVSegFormerOutput:
        """Logits and mask feature of every frame.

        Raises:
            UsageError: the images' sides are not multiples of 32.
        """
        clips, frames, height, width = batch.shape
        self.check_sides(batch, STRIDE)
        images, audio = batch.images.flatten(0, 1), batch.audio.flatten(0, 1)
        valid = batch.valid_frames().flatten()
        # Zeros are all that comes of a frame that does not exist, so it is not computed; except by a backbone
        # in training, whose batch normalisation sees such frames in the published code.
        if valid.all():
            logits, mask_feature = self._segment(self.backbone(images), audio)
        elif not valid.any():
            logits = images.new_zeros(0, self.task.channels, height, width)
            mask_feature = images.new_zeros(0, self.options.dim, height // 4, width // 4)
        elif self.training:
            logits, mask_feature = self._segment(
                [level[valid] for level in self.backbone(images)], audio[valid]
            )
        else:
            logits, mask_feature = self._segment(self.backbone(images[valid]), audio[valid])
        return AVSegFormerOutput(
            _restore(logits, valid).view(clips, frames, *logits.shape[1:]),
            _restore(mask_feature, valid).view(clips, frames, *mask_feature.shape[1:]),
        )

    def _segment(self, features: list[Tensor], audio: Tensor) -> tuple[Tensor, Tensor]:
        """Four feature maps and embeddings (N,128) -> logits (N,K,H,W) and mask feature (N,dim,H/4,W/4)."""
        sound = self.audio_projection(audio)
        fine, *coarser = (
            project(level) for project, level in zip(self.input_projections, features, strict=True)
        )
        tokens = self.encoder(coarser)

        queries = self.query_generator(sound)
        if self.decoder_queries is not None:
            queries = queries + self.decoder_queries
        queries = self.decoder(queries, tokens)

        half, shape = coarser[0].shape[-2:], fine.shape[-2:]
        stride8 = tokens[:, : half.numel()].transpose(1, 2).unflatten(2, half)
        pixels = self.mask_feature(fine, stride8).flatten(2).transpose(1, 2)
        pixels = self.mixer(pixels, sound)
        return self.mask_head(queries, pixels, shape), pixels.transpose(1, 2).unflatten(2, shape)

    def predict(self, batch: Batch) -> Tensor:
        """Probability of sound (B,T,H,W), or for avss class logits (B,T,71,H,W); zeros in missing frames."""
        output: AVSegFormerOutput = self(batch)
        logits = output.logits
        if self.task.semantic:
            return logits
        return logits[:, :, 0].sigmoid() * batch.valid_frames()[..., None, None]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """``iou`` (dice, or cross-entropy for avss) and ``mix``, over the frames that carry ground truth."""
        output = self(batch)
        frames = batch.annotated_frames()
        masks = batch.ground_truth()[frames]
        kind = "cross_entropy" if self.task.semantic else self.options.loss
        return {
            "iou": segmentation_loss(output.logits[frames], masks, kind),
            "mix": self.options.mix_weight * mix_loss(output.mask_feature[frames], masks, self.options.loss),
        }

    def load_upstream(self, state: Mapping[str, Tensor]) -> None:
        """Load a published checkpoint (``AVSegFormer_{res50,pvt}_{s4,ms3,avss}``, r50 and pvt only)."""
        if self.backbone_name not in PUBLISHED:
            raise UsageError(
                f"AVSegFormer has no published checkpoints with the backbone {self.backbone_name}; "
                f"there are some with {' and '.join(PUBLISHED)}."
            )
        load_renamed(
            self, state, upstream.rename, what=f"avsegformer for {self.task.name} with {self.backbone_name}"
        )


def _restore(values: Tensor, valid: Tensor) -> Tensor:
    """Rows of the valid frames back at their places, (N,...), and zeros elsewhere."""
    if len(values) == len(valid):
        return values
    restored = values.new_zeros(len(valid), *values.shape[1:])
    restored[valid] = values
    return restored
