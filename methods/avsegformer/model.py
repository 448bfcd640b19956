"""AVSegFormer's network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.nn.backbone import build_backbone
from avsbench_harness.nn.deformable import MultiScaleDeformableAttention
from avsbench_harness.nn.model import Model
from avsbench_harness.tasks import Task
from avsbench_harness.weights.strict import load_renamed

from . import upstream
from .loss import mix_loss, segmentation_loss
from .masks import MaskFeature, MaskHead, projection
from .mixers import mixer
from .options import Options
from .reformer import MaskReformer
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
class _Frames:
    """What is computed of M frames.

    Attributes:
        logits: (M,K,H,W).
        mask_feature: (M,dim,H/4,W/4) after the mixer.
        intermediate: a mask (M,K,H,W) for each decoder layer, if asked for.
    """

    logits: Tensor
    mask_feature: Tensor
    intermediate: list[Tensor]


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
    """AVSegFormer (Gao et al., AAAI 2024); the options decide in what it follows paper or published code.

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
        self.query_generator = QueryGenerator(options) if options.audio_queries == "generated" else None
        self.decoder_queries = (
            nn.Parameter(torch.empty(options.queries, dim)) if options.learnable_queries else None
        )
        self.decoder = QueryDecoder(options)
        self.mask_feature = MaskFeature(dim)
        self.mixer = mixer(options)
        self.mask_head = MaskHead(options, task.channels)
        self.mask_reformer = None if options.mask_reformer == "none" else MaskReformer(options, task.channels)
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
        valid = batch.valid_frames().flatten()
        # Zeros are all that comes of a frame that does not exist, so it is not computed.
        if valid.any():
            read = self._read(batch, valid)
            logits, mask_feature = read.logits, read.mask_feature
        else:
            logits = batch.images.new_zeros(0, self.task.channels, height, width)
            mask_feature = batch.images.new_zeros(0, self.options.dim, height // 4, width // 4)
        return AVSegFormerOutput(
            _restore(logits, valid).view(clips, frames, *logits.shape[1:]),
            _restore(mask_feature, valid).view(clips, frames, *mask_feature.shape[1:]),
        )

    def _read(self, batch: Batch, wanted: Tensor, *, intermediate: bool = False) -> _Frames:
        """What becomes of the M wanted frames, at least one, of the batch's N.

        Args:
            batch: the clips.
            wanted: (N,) bool.
            intermediate: make the intermediate masks, too.
        """
        features = self._features(batch.images.flatten(0, 1), wanted)
        audio = batch.audio.flatten(0, 1)[wanted]
        if audio.device.type != "cpu":
            return self._segment(features, audio, intermediate)
        # One frame after the other: all that is made of a frame stays in the processor's cache.
        frames = zip(audio.split(1), *(level.split(1) for level in features), strict=True)
        parts = [self._segment(levels, sound, intermediate) for sound, *levels in frames]
        return _Frames(
            torch.cat([part.logits for part in parts]),
            torch.cat([part.mask_feature for part in parts]),
            [torch.cat(layer) for layer in zip(*(part.intermediate for part in parts), strict=True)],
        )

    def _segment(self, features: Sequence[Tensor], audio: Tensor, intermediate: bool) -> _Frames:
        """What becomes of frames with these feature maps and embeddings (M,128)."""
        sound = self.audio_projection(audio)
        fine, *coarser = (
            project(level) for project, level in zip(self.input_projections, features, strict=True)
        )
        shapes = [(level.shape[2], level.shape[3]) for level in coarser]
        tokens = self.encoder(coarser)

        masks: list[Tensor] = []
        queries = self._queries(sound)
        if intermediate and self.mask_reformer is not None:
            for answers, attention in self.decoder.layer_by_layer(queries, tokens):
                masks.append(self.mask_reformer(attention, answers, shapes))
                queries = answers
        else:
            queries = self.decoder(queries, tokens)

        half, shape = shapes[0], (fine.shape[2], fine.shape[3])
        stride8 = tokens[:, : half[0] * half[1]].transpose(1, 2).unflatten(2, half)
        pixels = self.mask_feature(fine, stride8).flatten(2).transpose(1, 2)
        pixels = self.mixer(pixels, sound)
        logits = self.mask_head(queries, pixels, shape)
        return _Frames(logits, pixels.transpose(1, 2).unflatten(2, shape), masks)

    def _features(self, images: Tensor, wanted: Tensor) -> list[Tensor]:
        """The backbone's maps of the wanted ones among N images (N,3,H,W)."""
        if wanted.all():
            return list(self.backbone(images))
        if any(isinstance(module, _BatchNorm) and module.training for module in self.backbone.modules()):
            # Batch statistics are of all frames, as in the published code, missing ones included.
            return [level[wanted] for level in self.backbone(images)]
        return list(self.backbone(images[wanted]))

    def _queries(self, sound: Tensor) -> Tensor:
        """The decoder's queries (N,Q,dim) from sound tokens (N,dim) (paper section 3.5)."""
        if self.query_generator is None:
            queries = sound[:, None].expand(-1, self.options.queries, -1)
        else:
            queries = self.query_generator(sound)
        return queries if self.decoder_queries is None else queries + self.decoder_queries

    def predict(self, batch: Batch) -> Tensor:
        """Probability of sound (B,T,H,W), or for avss class logits (B,T,71,H,W); zeros in missing frames."""
        output: AVSegFormerOutput = self(batch)
        logits = output.logits
        if self.task.semantic:
            return logits
        return logits[:, :, 0].sigmoid() * batch.valid_frames()[..., None, None]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """``iou`` of the masks, and where they have a weight ``mix`` and ``inter`` (paper equation 4).

        Means over the frames that carry ground truth. Frames meet nowhere but in the backbone's batch norms,
        so the others are not computed any further.
        """
        self.check_sides(batch, STRIDE)
        options, frames = self.options, batch.annotated_frames()
        masks = batch.ground_truth()[frames]
        with_inter = self.mask_reformer is not None
        if not frames.any():
            names = ["iou"] + ["mix"] * (options.mix_weight > 0) + ["inter"] * with_inter
            return dict.fromkeys(names, self._zero())
        read = self._read(batch, frames.flatten(), intermediate=with_inter)
        losses = {"iou": segmentation_loss(read.logits, masks, options.loss)}
        if options.mix_weight > 0:
            kind = "bce" if options.loss == "bce" else "dice"
            losses["mix"] = options.mix_weight * mix_loss(read.mask_feature, masks, kind)
        if with_inter:
            losses["inter"] = options.inter_weight * torch.stack(
                [segmentation_loss(layer, masks, "dice") for layer in read.intermediate]
            ).sum(dim=0)
        return losses

    def _zero(self) -> Tensor:
        """0, with a gradient of 0 for everything that learns."""
        return torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum() * 0

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
