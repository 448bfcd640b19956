"""COMBO's network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.nn.mask_decoder import MaskDecoder, MaskPredictions
from avsbench_harness.nn.model import Model, ParamGroup
from avsbench_harness.nn.pixel_decoder import PixelDecoder
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.tasks import Task
from avsbench_harness.weights.strict import load_renamed

from . import upstream
from .encoder import ChannelWeights, SiamEncoder
from .fusion import AudioQueries, BilateralFusion
from .loss import FeatureProducts, consistency_loss, frame_targets, neighbours, set_losses
from .options import Options

#: Stride of the coarsest feature map: the sides of an image must be multiples of it.
STRIDE = 32
#: Backbones of the published checkpoints.
PUBLISHED = ("r50", "pvt")
#: Layers whose parameters the published recipe does not decay; embeddings are not decayed either.
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d)
#: Learned rows that are embeddings in the published code, and so not decayed.
EMBEDDINGS = (
    "fusion.visual_embedding",
    "fusion.audio_positions",
    "audio_queries.queries",
    "audio_queries.positions",
    "decoder.level_embedding",
)


@dataclass(frozen=True)
class ComboOutput:
    """Raw outputs; frames that do not exist are zeros.

    Attributes:
        class_logits: (B,T,Q,K+1) before the softmax, "no object" last; K = 2 (background, sound) for s4
            and ms3, 71 for avss.
        mask_logits: (B,T,Q,H/4,W/4) before the sigmoid.
    """

    class_logits: Tensor
    mask_logits: Tensor


class ComboModel(Model):
    """COMBO (Yang et al., CVPR 2024); the options say how much of it is the paper's and how much the code's.

    With ``audio_pairing="scrambled"`` what a frame's queries hear depends on the other frames of the batch:
    ``forward`` and ``losses`` follow the published code in this, ``predict`` takes one clip at a time, as
    the published evaluation does.
    """

    def __init__(self, task: Task, backbone: str, options: Options) -> None:
        """Random weights.

        Args:
            task: decides the number of classes.
            backbone: ``r50``, ``pvt`` or a timm name.
            options: see :class:`.options.Options`.
        """
        super().__init__()
        self.task = task
        self.options = options
        self.backbone_name = backbone
        self.classes = task.channels if task.semantic else 2
        self.backbone = SiamEncoder(backbone, options)
        channels = self.backbone.image.channels
        self.channel_weights = (
            ChannelWeights(channels, options.channel_weight) if options.use_maskige else None
        )
        self.pixel_decoder = PixelDecoder(
            channels, options.dim, layers=options.encoder_layers, ffn_dim=options.encoder_ffn_dim
        )
        self.fusion = None if options.fusion == "none" else BilateralFusion(options)
        self.audio_queries = AudioQueries(options)
        self.decoder = MaskDecoder(
            options.dim, self.classes, layers=options.decoder_layers, ffn_dim=options.ffn_dim
        )

    def forward(self, batch: Batch) -> ComboOutput:
        """Class and mask logits of every query of every frame.

        Raises:
            UsageError: the images' sides are not multiples of 32, or maskiges are missing.
        """
        valid = batch.valid_frames()
        predictions = self.depths(batch)
        return ComboOutput(
            _restore(predictions.class_logits[-1], valid), _restore(predictions.masks(), valid)
        )

    def depths(self, batch: Batch) -> MaskPredictions:
        """What the queries of the N frames that exist say at every depth of the decoder.

        Raises:
            UsageError: as for :meth:`forward`.
        """
        self.check_sides(batch, STRIDE)
        if self.options.use_maskige and batch.maskige is None:
            raise UsageError(
                "COMBO needs maskiges, images of class-agnostic masks, and this batch has none: name their "
                "source in the recipe (maskige: published, or felzenszwalb, which `avsb data maskige` "
                "makes), or do without by the option `use_maskige: false`."
            )
        valid = batch.valid_frames()
        images, audio = batch.images[valid], batch.audio[valid]
        if not len(images):
            return self._nothing(batch)
        maskiges = batch.maskige if self.options.use_maskige else None
        features, siam = self.backbone(images, None if maskiges is None else maskiges[valid])
        if siam is not None:
            assert self.channel_weights is not None  # both come with use_maskige
            features = self.channel_weights(features, siam)
        mask_features, maps = self.pixel_decoder(features)
        if self.fusion is not None:
            mask_features, audio = self.fusion(mask_features, audio)
        predictions: MaskPredictions = self.decoder(
            self.audio_queries(audio), self.audio_queries.positions, maps, mask_features
        )
        return predictions

    def _nothing(self, batch: Batch) -> MaskPredictions:
        """The predictions for no frame at all."""
        _, _, height, width = batch.shape
        queries, dim = self.options.queries, self.options.dim
        count = self.options.decoder_layers + 1
        # Of the network's own tensors, so that a loss without frames is a zero that belongs to the graph.
        embeddings = self.audio_queries.positions[None][:0]
        return MaskPredictions(
            [batch.images.new_zeros(0, queries, self.classes + 1)] * count,
            [embeddings] * count,
            batch.images.new_zeros(0, dim, height // 4, width // 4),
        )

    def predict(self, batch: Batch) -> Tensor:
        """Probability of sound (B,T,H,W), or for avss class scores (B,T,71,H,W); zeros in missing frames."""
        if self.options.audio_pairing == "scrambled" and batch.shape[0] > 1:
            return torch.cat([self.predict(clip) for clip in _clips(batch)])
        valid = batch.valid_frames()
        predictions = self.depths(batch)
        scores = semantic_scores(predictions.class_logits[-1], predictions.masks(), batch.shape[2:])
        if not self.task.semantic:
            scores = sound_probability(scores, self.options.object_score)
        return _restore(scores, valid)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """``class``, ``mask`` and ``dice`` over annotated frames, ``consistency`` over all that exist.

        Each is weighted and summed over the depths of the decoder; consistency leaves out the last.
        """
        options = self.options
        valid, annotated = batch.valid_frames(), batch.annotated_frames()
        targets = frame_targets(batch.ground_truth()[annotated], self.classes)
        predictions = self.depths(batch)
        chosen = annotated[valid]
        summed = options.consistency_reduction == "sum"
        clips = int(valid.any(dim=1).sum()) if summed else None
        weights = {"class": options.class_weight, "mask": options.mask_weight, "dice": options.dice_weight}
        # Zeros that belong to the graph: a batch may have nothing to learn from.
        zero = predictions.embeddings[-1].sum() * 0
        totals = dict.fromkeys((*weights, "consistency"), zero)
        depths = len(predictions.class_logits)
        features, maps = predictions.features, predictions.features[chosen].unbind()
        products = None
        if options.consistency_weight:
            products = FeatureProducts.of(features, neighbours(valid, options.consistency_chunk))
        # The last depth draws its random points first, as in the published code.
        for depth in (depths - 1, *range(depths - 1)):
            classes, embeddings = predictions.class_logits[depth], predictions.embeddings[depth]
            if targets:
                terms = set_losses(classes[chosen], embeddings[chosen], maps, targets, options)
                for name, weight in weights.items():
                    totals[name] = totals[name] + weight * terms[name]
            if depth < depths - 1 and products is not None:
                term = consistency_loss(
                    products.distances(embeddings),
                    clips=clips,
                    weight_learns=options.consistency_gradient == "both",
                )
                totals["consistency"] = totals["consistency"] + options.consistency_weight * term
        return totals

    def loss_counts(self, batch: Batch) -> dict[str, Tensor | None]:
        """``mask`` and ``dice`` are averaged over matched masks, ``class`` over queries by their weights.

        ``consistency`` is over pairs of frames, or over clips.
        """
        options, valid = self.options, batch.valid_frames()
        targets = frame_targets(batch.ground_truth()[batch.annotated_frames()], self.classes)
        matched = torch.tensor(
            sum(min(options.queries, len(target.labels)) for target in targets), device=valid.device
        )
        silent = len(targets) * options.queries - matched
        if options.consistency_reduction == "sum":
            pairs = valid.any(dim=1).sum()
        else:
            pairs = torch.tensor(len(neighbours(valid, options.consistency_chunk)[0]), device=valid.device)
        return {
            "class": matched + options.no_object_weight * silent,
            "mask": matched,
            "dice": matched,
            "consistency": pairs,
        }

    def param_groups(self, recipe: Recipe) -> list[ParamGroup]:
        """Backbones and the rest, each with and (norms, embeddings) without weight decay."""
        plain = {
            id(parameter)
            for module in self.modules()
            if isinstance(module, NORMS)
            for parameter in module.parameters(recurse=False)
        }
        groups: dict[str, list[nn.Parameter]] = {
            name: [] for name in ("backbone", "backbone without decay", "head", "head without decay")
        }
        for name, parameter in self.named_parameters():
            part = "backbone" if name.startswith("backbone.") else "head"
            undecayed = id(parameter) in plain or name in EMBEDDINGS
            groups[f"{part} without decay" if undecayed else part].append(parameter)
        scale = float(recipe.optimizer.backbone_lr_scale)
        return [
            ParamGroup(
                name,
                parameters,
                lr_scale=scale if name.startswith("backbone") else 1.0,
                weight_decay=0.0 if name.endswith("without decay") else None,
            )
            for name, parameters in groups.items()
        ]

    def load_upstream(self, state: Mapping[str, Tensor]) -> None:
        """Load a published checkpoint's state dict (COMBO R50 or PVTv2, for S4, MS3 or AVSS)."""
        if self.backbone_name not in PUBLISHED:
            raise UsageError(
                f"COMBO has no published checkpoints with the backbone {self.backbone_name}; "
                f"there are some with {' and '.join(PUBLISHED)}."
            )
        load_renamed(
            self, state, upstream.rename, what=f"combo for {self.task.name} with {self.backbone_name}"
        )


def semantic_scores(class_logits: Tensor, mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Scores per class and pixel: the sum over queries of class probability times mask probability.

    Args:
        class_logits: (N,Q,K+1), "no object" last, which gets no score.
        mask_logits: (N,Q,h,w).
        size: height and width of the result, to which mask logits are resized.

    Returns:
        (N,K,H,W), between 0 and Q
    """
    probabilities = class_logits.softmax(dim=-1)[..., :-1]
    scores = class_logits.new_empty(len(class_logits), probabilities.shape[-1], *size)
    # One frame at a time: a hundred masks at full size are many times a frame's scores.
    for frame, probability, logits in zip(scores, probabilities, mask_logits, strict=True):
        masks = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
        frame.copy_((probability.T.to(masks.dtype) @ masks.sigmoid().flatten(1)).view_as(frame))
    return scores


def sound_probability(scores: Tensor, how: Literal["softmax", "share"]) -> Tensor:
    """Probability of sound, above one half exactly where the score of sound is above that of background.

    Args:
        scores: (N,2,H,W) of background and sound, sums over queries.
        how: ``softmax`` of the two sums, as the published evaluation does, or ``share``: the score of sound
            as a part of both.

    Returns:
        (N,H,W) in [0, 1]
    """
    if how == "softmax":
        return scores.softmax(dim=1)[:, 1]
    # A sum of 0 (every query certain of "no object") is background.
    return scores[:, 1] / scores.sum(dim=1).clamp(min=torch.finfo(scores.dtype).tiny)


def _restore(values: Tensor, valid: Tensor) -> Tensor:
    """Rows (N,...) of the frames that exist at their places (B,T,...), zeros elsewhere."""
    if len(values) == valid.numel():
        return values.unflatten(0, tuple(valid.shape))
    restored = values.new_zeros(*valid.shape, *values.shape[1:])
    restored[valid] = values
    return restored


def _clips(batch: Batch) -> Iterator[Batch]:
    """Batches of one clip each."""
    for index in range(batch.shape[0]):
        parts = {field.name: getattr(batch, field.name) for field in fields(batch)}
        yield replace(
            batch, **{name: value[index : index + 1] for name, value in parts.items() if value is not None}
        )
