"""COMBO's network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.nn.frames import restore_frames
from avsbench_harness.nn.mask_decoder import MaskDecoder, MaskPredictions
from avsbench_harness.nn.model import Model, ParamGroup
from avsbench_harness.nn.pixel_decoder import PixelDecoder
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.tasks import Task

from . import upstream
from .encoder import ChannelWeights, SiamEncoder
from .fusion import AudioQueries, build_fusion
from .loss import FeatureProducts, consistency_loss, frame_targets, neighbours, set_losses
from .options import Options

#: Stride of the coarsest feature map: the sides of an image must be multiples of it.
STRIDE = 32
#: Layers without weight decay in the published code.
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d)
#: Parameters that are embeddings in the published code, which have no weight decay.
EMBEDDINGS = (
    "fusion.visual_embedding",
    "fusion.audio_positions",
    "audio_queries.queries",
    "audio_queries.positions",
    "decoder.level_embedding",
)


@dataclass(frozen=True)
class ComboOutput:
    """Raw outputs; padded frames are zero.

    Attributes:
        class_logits: (B,T,Q,K+1) before the softmax, "no object" last; K = 2 (background, sound) for s4
            and ms3, 71 for avss.
        mask_logits: (B,T,Q,H/4,W/4) before the sigmoid.
    """

    class_logits: Tensor
    mask_logits: Tensor


class ComboModel(Model):
    """COMBO (Yang et al., CVPR 2024); differences between released code and paper are options.

    With ``audio_pairing="scrambled"`` the audio of a frame's queries depends on the other frames of the
    batch, in ``forward`` and ``losses`` as in the published code; ``predict`` processes one clip at a time,
    as the published evaluation does.
    """

    def __init__(self, task: Task, backbone: str, options: Options) -> None:
        """Initialise with random weights.

        Args:
            task: determines the number of classes.
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
        self.fusion = build_fusion(options)
        self.audio_queries = AudioQueries(options)
        self.decoder = MaskDecoder(
            options.dim, self.classes, layers=options.decoder_layers, ffn_dim=options.ffn_dim
        )

    def forward(self, batch: Batch) -> ComboOutput:
        """Return the class and mask logits of every query of every frame.

        Raises:
            UsageError: the images' sides are not multiples of 32, or maskiges are missing.
        """
        valid = batch.valid_frames()
        predictions = self.depths(batch)
        return ComboOutput(
            restore_frames(predictions.class_logits[-1], valid), restore_frames(predictions.masks(), valid)
        )

    def depths(self, batch: Batch) -> MaskPredictions:
        """Return the predictions of the queries of the N valid frames after every decoder layer.

        Raises:
            UsageError: as for :meth:`forward`.
        """
        self.check_sides(batch, STRIDE)
        if self.options.use_maskige and batch.maskige is None:
            raise UsageError(
                "COMBO needs maskiges, images of class-agnostic masks, and this batch has none: set their "
                "source in the recipe (maskige: published, or felzenszwalb, made by `avsb data maskige`), "
                "or disable them with the option `use_maskige: false`."
            )
        valid = batch.valid_frames()
        if not valid.any():
            return self._without_frames(batch)
        audio = batch.audio[valid]
        mask_features, maps = batch.once("pixel decoder", lambda: self._picture_features(batch, valid))
        if self.fusion is not None:
            mask_features, audio = self.fusion(mask_features, audio)
        predictions: MaskPredictions = self.decoder(
            self.audio_queries(audio), self.audio_queries.positions, maps, mask_features
        )
        return predictions

    def _picture_features(self, batch: Batch, valid: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the mask features and the three maps of the pixel decoder for the N valid frames."""
        features = self.maps(batch, valid)
        if self.channel_weights is not None:
            features = self.channel_weights(features, self.maps(batch, valid, "maskige"))
        decoded: tuple[Tensor, list[Tensor]] = self.pixel_decoder(features)
        return decoded

    def encode(self, images: Tensor, source: str = "images") -> list[Tensor]:
        """Return the maps of images or maskiges (N,3,H,W), see :class:`.encoder.SiamEncoder`."""
        maps: list[Tensor] = self.backbone(images, source)
        return maps

    def _without_frames(self, batch: Batch) -> MaskPredictions:
        """Return the predictions for a batch without valid frames, N = 0."""
        _, _, height, width = batch.shape
        queries, dim = self.options.queries, self.options.dim
        count = self.options.decoder_layers + 1
        zeros = batch.images.new_zeros
        return MaskPredictions(
            [zeros(0, queries, self.classes + 1)] * count,
            [zeros(0, queries, dim)] * count,
            zeros(0, dim, height // 4, width // 4),
        )

    def predict(self, batch: Batch) -> Tensor:
        """Return probabilities of sound (B,T,H,W), or class scores (B,T,71,H,W); padded frames are zero."""
        if self.options.audio_pairing == "scrambled" and batch.shape[0] > 1:
            clips = batch.once("clips", lambda: self._single_clips(batch))
            return torch.cat(
                [
                    self.predict(clip.with_audio(audio[None]))
                    for clip, audio in zip(clips, batch.audio, strict=True)
                ]
            )
        valid = batch.valid_frames()
        predictions = self.depths(batch)
        scores = semantic_scores(predictions.class_logits[-1], predictions.masks(), batch.shape[2:])
        if not self.task.semantic:
            scores = sound_probability(scores, self.options.object_score)
        return restore_frames(scores, valid)

    @staticmethod
    def _single_clips(batch: Batch) -> list[Batch]:
        clips = [batch.select(slice(index, index + 1)) for index in range(batch.shape[0])]
        return clips if batch.shared is None else [clip.sharing() for clip in clips]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``class``, ``mask`` and ``dice`` over annotated, ``consistency`` over all valid frames.

        Each is weighted and summed over the depths of the decoder; consistency leaves out the last.
        """
        options = self.options
        valid, annotated = batch.valid_frames(), batch.annotated_frames()
        weights = {"class": options.class_weight, "mask": options.mask_weight, "dice": options.dice_weight}
        if not valid.any():
            return dict.fromkeys((*weights, "consistency"), self.zero_loss())
        targets = frame_targets(batch.ground_truth()[annotated], self.classes)
        predictions = self.depths(batch)
        chosen = annotated[valid]
        summed = options.consistency_reduction == "sum"
        clips = int(valid.any(dim=1).sum()) if summed else None
        # Zero losses that are part of the graph: the batch may have neither targets nor pairs of frames.
        zero = predictions.embeddings[-1].sum() * 0
        totals = dict.fromkeys((*weights, "consistency"), zero)
        depths = len(predictions.class_logits)
        features, maps = predictions.features, predictions.features[chosen].unbind()
        products = None
        if options.consistency_weight:
            products = FeatureProducts.of(features, neighbours(valid, options.consistency_chunk))
        # The random points of the last depth are drawn first, as in the published code.
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
        """Return the number of matched masks, of weighted queries, and of pairs of frames or clips.

        ``mask`` and ``dice`` are averaged over matched masks, ``class`` over queries with their weights, and
        ``consistency`` over pairs of frames, or over clips.
        """
        options, valid = self.options, batch.valid_frames()
        targets = frame_targets(batch.ground_truth()[batch.annotated_frames()], self.classes)
        matched = torch.tensor(
            sum(min(options.queries, len(target.labels)) for target in targets), device=valid.device
        )
        unmatched = len(targets) * options.queries - matched
        if options.consistency_reduction == "sum":
            pairs = valid.any(dim=1).sum()
        else:
            pairs = torch.tensor(len(neighbours(valid, options.consistency_chunk)[0]), device=valid.device)
        return {
            "class": matched + options.no_object_weight * unmatched,
            "mask": matched,
            "dice": matched,
            "consistency": pairs,
        }

    def param_groups(self, recipe: Recipe) -> list[ParamGroup]:
        """Return backbones and the rest, each with and (norms, embeddings) without weight decay."""
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
        """Load published weights (COMBO R50 or PVTv2, for S4, MS3 or AVSS)."""
        self.load_published(state, upstream.rename, backbone=self.backbone_name, backbones=upstream.BACKBONES)


def semantic_scores(class_logits: Tensor, mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return scores per class and pixel: the sum over queries of class times mask probability.

    Args:
        class_logits: (N,Q,K+1), "no object" last, which has no score.
        mask_logits: (N,Q,h,w).
        size: height and width to which mask logits are resized.

    Returns:
        (N,K,H,W), in [0, Q]
    """
    probabilities = class_logits.softmax(dim=-1)[..., :-1]
    scores = class_logits.new_empty(len(class_logits), probabilities.shape[-1], *size)
    # One frame at a time, to save memory: Q masks at full size are larger than the scores of K classes.
    for frame, probability, logits in zip(scores, probabilities, mask_logits, strict=True):
        masks = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
        frame.copy_((probability.T.to(masks.dtype) @ masks.sigmoid().flatten(1)).view_as(frame))
    return scores


def sound_probability(scores: Tensor, how: Literal["softmax", "share"]) -> Tensor:
    """Return the probability of sound, above 1/2 where the score of sound is above that of background.

    Args:
        scores: (N,2,H,W) of background and sound, sums over queries.
        how: ``softmax`` of the two sums, as in the published evaluation, or ``share``: the score of sound
            divided by the sum of both.

    Returns:
        (N,H,W) in [0, 1]
    """
    if how == "softmax":
        return scores.softmax(dim=1)[:, 1]
    # A sum of 0 (the probability of "no object" is 1 for all queries) is background.
    return scores[:, 1] / scores.sum(dim=1).clamp(min=torch.finfo(scores.dtype).tiny)
