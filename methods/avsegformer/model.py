"""AVSegFormer's network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from avsbench_harness.data.batch import Batch
from avsbench_harness.nn.backbone import build_backbone
from avsbench_harness.nn.deformable import MultiScaleDeformableAttention
from avsbench_harness.nn.frames import restore_frames
from avsbench_harness.nn.model import Model
from avsbench_harness.tasks import Task

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
#: Values of the mask head's hidden layer that are computed at once on the CPU.
PIECE = 8_000_000
#: Stochastic depth in the published code.
DROP_PATH_RATES = {"pvt": 0.1}


@dataclass(frozen=True)
class _Pictures:
    """The results for M frames that do not depend on the audio.

    Attributes:
        tokens: (M,S,dim) pixels of the coarser scales after the encoder.
        mask_feature: (M,dim,H/4,W/4) before the mixer.
        shapes: heights and widths of the coarser scales.
    """

    tokens: Tensor
    mask_feature: Tensor
    shapes: list[tuple[int, int]]


@dataclass(frozen=True)
class _Frames:
    """Intermediate results of M frames.

    Attributes:
        logits: (M,K,H,W).
        mask_feature: (M,dim,H/4,W/4) after the mixer.
        intermediate: a mask (M,K,H,W) for each decoder layer, if requested.
    """

    logits: Tensor
    mask_feature: Tensor
    intermediate: list[Tensor]


@dataclass(frozen=True)
class AVSegFormerOutput:
    """Raw outputs; padded frames are zero.

    Attributes:
        logits: (B,T,K,H,W), K = 1 for s4 and ms3 (before the sigmoid), 71 for avss (before the softmax).
        mask_feature: (B,T,dim,H/4,W/4) after the mixer, the input of the mixing loss.
    """

    logits: Tensor
    mask_feature: Tensor


class AVSegFormerModel(Model):
    """AVSegFormer (Gao et al., AAAI 2024); differences between the published versions are options.

    Frames are independent of each other, except for batch normalisation in training.
    """

    def __init__(self, task: Task, backbone: str, options: Options) -> None:
        """Initialise with random weights.

        Args:
            task: determines the number of output channels and the loss.
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
        """Initialise matrices and kernels of the head, queries included, Xavier-uniform (published code)."""
        excluded = {
            id(parameter)
            for module in (self.backbone, self.audio_projection)
            for parameter in module.parameters()
        }
        for parameter in self.parameters():
            if parameter.dim() > 1 and id(parameter) not in excluded:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, MultiScaleDeformableAttention):
                module.reset_parameters()
        nn.init.normal_(self.encoder.level_embedding)

    def forward(self, batch: Batch) -> AVSegFormerOutput:
        """Return the logits and the mask feature of every frame.

        Raises:
            UsageError: the images' sides are not multiples of 32.
        """
        height, width = batch.shape[2:]
        self.check_sides(batch, STRIDE)
        valid = batch.valid_frames()
        # The output of padded frames is zero, so they are not computed.
        if valid.any():
            computed = self._compute(batch, valid)
            logits, mask_feature = computed.logits, computed.mask_feature
        else:
            logits = batch.images.new_zeros(0, self.task.channels, height, width)
            mask_feature = batch.images.new_zeros(0, self.options.dim, height // 4, width // 4)
        return AVSegFormerOutput(restore_frames(logits, valid), restore_frames(mask_feature, valid))

    def _compute(self, batch: Batch, frames: Tensor, *, intermediate: bool = False) -> _Frames:
        """Compute M of the batch's frames, at least one.

        Args:
            batch: the clips.
            frames: (B,T) bool, M of them true.
            intermediate: whether to compute the intermediate masks.
        """
        features = batch.once("backbone maps", lambda: self._features(batch, frames))
        audio = batch.audio[frames]
        if audio.device.type != "cpu":
            pictures = batch.once("pictures", lambda: self._pictures(features))
            return self._segment(pictures, audio, intermediate)
        # In pieces, so that intermediate results stay in the processor's cache: single frames at full width.
        pixels = features[0].shape[2] * features[0].shape[3]
        size = max(1, PIECE // (pixels * self.options.mask_mlp_dim))
        parts = []
        for index, (sound, *levels) in enumerate(
            zip(audio.split(size), *(level.split(size) for level in features), strict=True)
        ):
            pictures = batch.once(f"pictures {index}", partial(self._pictures, levels))
            parts.append(self._segment(pictures, sound, intermediate))
        return _Frames(
            torch.cat([part.logits for part in parts]),
            torch.cat([part.mask_feature for part in parts]),
            [torch.cat(layer) for layer in zip(*(part.intermediate for part in parts), strict=True)],
        )

    def _pictures(self, features: Sequence[Tensor]) -> _Pictures:
        """Compute everything of frames that does not depend on the audio, from their backbone maps."""
        fine, *coarser = (
            project(level) for project, level in zip(self.input_projections, features, strict=True)
        )
        shapes = [(level.shape[2], level.shape[3]) for level in coarser]
        tokens = self.encoder(coarser)
        half = shapes[0]
        stride8 = tokens[:, : half[0] * half[1]].transpose(1, 2).unflatten(2, half)
        return _Pictures(tokens, self.mask_feature(fine, stride8), shapes)

    def _segment(self, pictures: _Pictures, audio: Tensor, intermediate: bool) -> _Frames:
        """Compute frames from their pictures and audio embeddings (M,128)."""
        sound = self.audio_projection(audio)
        tokens, shapes = pictures.tokens, pictures.shapes
        masks: list[Tensor] = []
        queries = self._queries(sound)
        if intermediate and self.mask_reformer is not None:
            for updated, attention in self.decoder.layer_by_layer(queries, tokens):
                masks.append(self.mask_reformer(attention, updated, shapes))
                queries = updated
        else:
            queries = self.decoder(queries, tokens)

        feature = pictures.mask_feature
        shape = (feature.shape[2], feature.shape[3])
        pixels = self.mixer(feature.flatten(2).transpose(1, 2), sound)
        logits = self.mask_head(queries, pixels, shape)
        return _Frames(logits, pixels.transpose(1, 2).unflatten(2, shape), masks)

    def _features(self, batch: Batch, frames: Tensor) -> list[Tensor]:
        """Return the backbone's maps of the frames (B,T) marked true."""
        norms = any(isinstance(module, _BatchNorm) and module.training for module in self.backbone.modules())
        if norms and not batch.features:
            # Batch statistics are over all frames, padded ones included, as in the published code.
            return [level[frames.flatten()] for level in self.backbone(batch.images.flatten(0, 1))]
        return self.maps(batch, frames)

    def _queries(self, sound: Tensor) -> Tensor:
        """Return the decoder's queries (N,Q,dim) for audio tokens (N,dim) (paper section 3.5)."""
        if self.query_generator is None:
            queries = sound[:, None].expand(-1, self.options.queries, -1)
        else:
            queries = self.query_generator(sound)
        return queries if self.decoder_queries is None else queries + self.decoder_queries

    def predict(self, batch: Batch) -> Tensor:
        """Return probabilities of sound (B,T,H,W), or class logits (B,T,71,H,W); padded frames are zero."""
        output: AVSegFormerOutput = self(batch)
        logits = output.logits
        if self.task.semantic:
            return logits
        return logits[:, :, 0].sigmoid() * batch.valid_frames()[..., None, None]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``iou`` of the masks, and ``mix`` and ``inter`` if enabled (paper equation 4).

        All are means over the annotated frames. Frames interact only in the backbone's batch norms, so
        nothing else is computed of the others.
        """
        self.check_sides(batch, STRIDE)
        options, frames = self.options, batch.annotated_frames()
        masks = batch.ground_truth()[frames]
        with_inter = self.mask_reformer is not None
        if not frames.any():
            names = ["iou"] + ["mix"] * (options.mix_weight > 0) + ["inter"] * with_inter
            return dict.fromkeys(names, self.zero_loss())
        computed = self._compute(batch, frames, intermediate=with_inter)
        losses = {"iou": segmentation_loss(computed.logits, masks, options.loss)}
        if options.mix_weight > 0:
            kind = "bce" if options.loss == "bce" else "dice"
            losses["mix"] = options.mix_weight * mix_loss(computed.mask_feature, masks, kind)
        if with_inter:
            losses["inter"] = options.inter_weight * torch.stack(
                [segmentation_loss(layer, masks, options.loss) for layer in computed.intermediate]
            ).sum(dim=0)
        return losses

    def load_upstream(self, state: Mapping[str, Tensor]) -> None:
        """Load published weights of either version (``AVSegFormer_{res50,pvt}_{s4,ms3,avss}``)."""
        rename = upstream.rename if self.mask_reformer is None else upstream.rename_with_reformer
        self.load_published(state, rename, backbone=self.backbone_name, backbones=upstream.BACKBONES)
