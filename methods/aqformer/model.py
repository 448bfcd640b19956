"""AQFormer's network, from the paper: Figure 2 and section 3."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.nn.backbone import build_backbone
from avsbench_harness.nn.frames import restore_frames
from avsbench_harness.nn.model import Model
from avsbench_harness.tasks import Task

from .decoder import AudioQueriedDecoder
from .interaction import AudioBridgedInteraction
from .loss import (
    mask_losses,
    masked_average,
    mean_similarity,
    resize,
    similarity_loss,
    sounding_class_loss,
)
from .options import SCALES, Options
from .pixel_decoder import PixelDecoder

#: Stride of the coarsest feature map: the sides of an image must be multiples of it.
STRIDE = 32


@dataclass(frozen=True)
class AQFormerOutput:
    """Raw outputs; padded frames are zero. L = 3 N decoder layers.

    Attributes:
        mask_logits: (B,T,L,H/4,W/4), before the sigmoid; the last layer's are the prediction.
        class_logits: (B,T,70,H/4,W/4) of the classes without background; ``None`` for s4 and ms3.
        embeddings: (B,T,L,dim) ``A`` of layers 1 to L; normalised with the option ``output_norm``.
        maps: ``M`` of scales 1 to 4, (B,T,dim,h,w) at strides 32, 16, 8 and 4.
    """

    mask_logits: Tensor
    class_logits: Tensor | None
    embeddings: Tensor
    maps: tuple[Tensor, Tensor, Tensor, Tensor]


class AQFormerModel(Model):
    """AQFormer (Huang et al., IJCAI 2023); the model card lists the choices that the paper leaves open."""

    def __init__(self, task: Task, backbone: str, options: Options) -> None:
        """Initialise with random weights.

        Args:
            task: determines whether there is a class head, and the number of vanilla queries.
            backbone: ``r50``, ``pvt``, ``swin_t`` or a timm name.
            options: see :class:`.options.Options`.
        """
        super().__init__()
        self.task = task
        self.options = options
        self.backbone = build_backbone(
            backbone, pretrained=options.pretrained, drop_path_rate=options.drop_path_rate
        )
        self.pixel_decoder = PixelDecoder(self.backbone.channels, options)
        self.interactions = nn.ModuleDict(
            {str(scale): AudioBridgedInteraction(options) for scale in options.abti}
        )
        self.decoder = AudioQueriedDecoder(options, scales=len(SCALES) - 1, vanilla_queries=task.frames)
        self.class_head = nn.Linear(options.dim, task.channels - 1) if task.semantic else None
        self._query_similarity: Tensor | None = None

    def forward(self, batch: Batch) -> AQFormerOutput:
        """Return the masks after every decoder layer, and the embeddings and maps they are computed from.

        Raises:
            UsageError: the sides of the images are not multiples of 32, or a clip has more frames than
                there are vanilla queries.
        """
        self.check_sides(batch, STRIDE)
        valid = batch.valid_frames()
        if not valid.any():
            return self._without_frames(batch)
        audio = batch.audio.masked_fill(~valid[..., None], 0.0)
        # Only valid frames are computed, so that padded frames do not count in batch statistics.
        aggregated = self.pixel_decoder(self.maps(batch, valid), audio[valid])
        maps = [
            self._interact(scale, restore_frames(level, valid), audio, valid)
            for scale, level in zip(SCALES, aggregated, strict=True)
        ]
        *coarser, mask_features = maps
        embeddings = self.decoder(audio, coarser, valid) * valid[..., None, None]
        scaled = embeddings * self.options.dim**-0.5 if self.options.output_norm else embeddings
        return AQFormerOutput(
            mask_logits=mask_products(scaled, mask_features),  # equation 6
            class_logits=self._class_logits(scaled[:, :, -1], mask_features, valid),
            embeddings=embeddings,
            maps=(maps[0], maps[1], maps[2], mask_features),
        )

    def predict(self, batch: Batch) -> Tensor:
        """Return probabilities of sound (B,T,H,W), or class scores (B,T,71,H,W); padded frames are zero.

        The background's score is 0. The score of a pixel's most likely class is the logit of sound, and the
        scores of other classes are lower by the difference of their logits, so that a class is predicted
        where the probability of sound is above 1/2.
        """
        output: AQFormerOutput = self(batch)
        valid = batch.valid_frames()
        size = (batch.shape[2], batch.shape[3])
        sounding = resize(output.mask_logits[:, :, -1:].flatten(0, 1).float(), size)  # (B*T,1,H,W)
        if output.class_logits is None:
            return sounding.sigmoid().view(batch.shape) * valid[..., None, None]
        classes = resize(output.class_logits.flatten(0, 1).float(), size)
        classes = sounding + classes - classes.amax(dim=1, keepdim=True)
        scores = torch.cat([torch.zeros_like(sounding), classes], dim=1)
        return scores.unflatten(0, valid.shape) * valid[..., None, None, None]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms ``mask_bce``, ``mask_dice``, ``similarity``, and ``class`` for avss.

        See equations 13 and 14. Mask and class terms are over the annotated frames. The similarity loss uses
        predicted masks (equation 8), so it is over all valid frames.
        """
        output = self(batch)
        options = self.options
        frames = batch.annotated_frames()
        truth = batch.ground_truth()[frames]
        bce, dice = mask_losses(output.mask_logits[frames], truth > 0)
        terms = {"mask_bce": options.bce_weight * bce, "mask_dice": options.dice_weight * dice}
        valid = batch.valid_frames()
        with torch.no_grad():
            self._query_similarity = mean_similarity(output.embeddings[:, :, -1], valid)
        if options.similarity_loss:
            similarity = similarity_loss(
                output.embeddings, self._pooled(output), valid, options.similarity_reduction
            )
            terms["similarity"] = options.similarity_weight * similarity
        if output.class_logits is not None:
            loss = sounding_class_loss(output.class_logits[frames], truth)
            terms["class"] = options.class_weight * loss
        return terms

    def loss_counts(self, batch: Batch) -> dict[str, Tensor | None]:
        """Return the number of clips for ``similarity`` and of sounding pixels for ``class``."""
        sounds = batch.ground_truth()[batch.annotated_frames()] > 0
        return {"similarity": batch.valid_frames().any(dim=1).sum(), "class": sounds.sum()}

    def diagnostics(self) -> dict[str, float]:
        """Return the mean cosine similarity of the final queries of two frames of a clip.

        Near 1 the queries no longer distinguish the frames.
        """
        return {} if self._query_similarity is None else {"query_similarity": float(self._query_similarity)}

    def _interact(self, scale: int, maps: Tensor, audio: Tensor, valid: Tensor) -> Tensor:
        """Apply ABTI to a scale (B,T,dim,h,w), if the options select it."""
        if scale not in self.options.abti:
            return maps
        enhanced: Tensor = self.interactions[str(scale)](maps, audio, valid)
        return enhanced

    def _class_logits(self, embeddings: Tensor, features: Tensor, valid: Tensor) -> Tensor | None:
        """Apply equation 6 with a weight per channel and class to (B,T,dim), (B,T,dim,h,w): (B,T,70,h,w)."""
        if self.class_head is None:
            return None
        weighted = embeddings[:, :, None] * self.class_head.weight
        logits = mask_products(weighted, features) + self.class_head.bias[:, None, None]
        return logits * valid[..., None, None, None]

    def _pooled(self, output: AQFormerOutput) -> Tensor:
        """Return ``Z`` of every layer, (B,T,L,dim): its scale averaged over the final mask (equation 8)."""
        probability = output.mask_logits[:, :, -1].sigmoid()
        *coarser, _ = output.maps
        stage = [masked_average(level, probability) for level in coarser]
        return torch.stack(stage * self.options.stages, dim=2)

    def _without_frames(self, batch: Batch) -> AQFormerOutput:
        """Return the output for a batch without valid frames: zeros with a gradient for every parameter."""
        clips, frames, height, width = batch.shape
        zero = self.zero_loss()
        layers, dim = len(self.decoder.layers), self.options.dim
        first, second, third, last = (
            zero.expand(clips, frames, dim, height // stride, width // stride) for stride in (32, 16, 8, 4)
        )
        quarter = (height // 4, width // 4)
        classes = self.task.channels - 1
        return AQFormerOutput(
            mask_logits=zero.expand(clips, frames, layers, *quarter),
            class_logits=zero.expand(clips, frames, classes, *quarter) if self.task.semantic else None,
            embeddings=zero.expand(clips, frames, layers, dim),
            maps=(first, second, third, last),
        )


def mask_products(embeddings: Tensor, features: Tensor) -> Tensor:
    """Return equation 6 before the sigmoid: products of each frame's embeddings and mask features.

    Args:
        embeddings: (B,T,Q,dim).
        features: (B,T,dim,h,w).

    Returns:
        (B,T,Q,h,w)
    """
    return (embeddings @ features.flatten(3)).unflatten(3, features.shape[-2:])
