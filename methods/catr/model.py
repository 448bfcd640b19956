"""CATR's network, as released."""

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
from avsbench_harness.nn.positions import sine_positions
from avsbench_harness.nn.upstream import load_renamed
from avsbench_harness.tasks import Task

from . import upstream
from .decoder import MaskFeature, QueryDecoder
from .encoder import AudioProjection, AudioTokens, SpatialEncoder, TemporalEncoder
from .frames import Frames, restore
from .loss import SOUNDING, TERMS, clip_losses, weigh
from .options import Options

#: Channels of a VGGish embedding.
AUDIO_DIM = 128
#: Stride of the coarsest feature map: the sides of an image must be multiples of it.
STRIDE = 32
#: Stride of the masks.
MASK_STRIDE = 16
#: The backbone of the published checkpoint.
PUBLISHED = "pvt"


@dataclass(frozen=True)
class CATROutput:
    """Raw outputs; frames that do not exist are zeros.

    Attributes:
        reference_logits: (B,T,Q,2), before the softmax; class 0: the query's object sounds.
        mask_logits: (B,T,Q,H/16,W/16), before the sigmoid.
        earlier: the same of the decoder's earlier layers, which the loss also looks at.
    """

    reference_logits: Tensor
    mask_logits: Tensor
    earlier: tuple[CATROutput, ...] = ()

    def best(self) -> tuple[Tensor, Tensor]:
        """The query that most probably sounds, (B,T) int64, and its mask logits (B,T,H/16,W/16).

        The published code takes it frame by frame; the paper (equation 10) one for the clip.
        """
        query = self.reference_logits.softmax(dim=-1)[..., SOUNDING].argmax(dim=-1)
        index = query[..., None, None, None].expand(-1, -1, 1, *self.mask_logits.shape[-2:])
        return query, self.mask_logits.gather(2, index)[:, :, 0]


class CATRModel(Model):
    """CATR (Li et al., ACM MM 2023) as its authors released it; what differs is in the model card.

    Clips are independent of each other, except through batch normalisation in training. The frames of a clip
    meet in its sound, and through it in the map that masks are read from.
    """

    def __init__(self, task: Task, backbone: str, options: Options) -> None:
        """Random weights.

        Args:
            task: s4 or ms3.
            backbone: ``r50``, ``pvt``, ``swin_t`` or a timm name.
            options: see :class:`.options.Options`.
        """
        super().__init__()
        self.task = task
        self.options = options
        self.backbone_name = backbone
        self.backbone = build_backbone(
            backbone, pretrained=options.pretrained, drop_path_rate=options.drop_path_rate
        )
        dim = options.dim
        # The published code also computes the finest level, and never looks at it.
        self.levels = nn.ModuleList(DilatedSum(channels, dim) for channels in self.backbone.channels[1:])
        self.video_projection = nn.Linear(dim, dim)
        self.audio_projection = AudioProjection(AUDIO_DIM, options)
        self.spatial_encoder = SpatialEncoder(options)
        self.temporal_encoder = TemporalEncoder(options)
        self.decoder = QueryDecoder(options)
        self.mask_feature = MaskFeature(options)
        self.reference_head = nn.Linear(dim, 2)
        self.kernel_head = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, options.kernel_channels)
        )
        self._initialise()

    def _initialise(self) -> None:
        """As in DETR: Xavier-uniform matrices in the transformers, N(0, 1) queries."""
        for part in (self.spatial_encoder, self.temporal_encoder.layers, self.decoder):
            for parameter in part.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)
        nn.init.normal_(self.decoder.queries)

    def forward(self, batch: Batch) -> CATROutput:
        """Masks of all queries, and which of them sound, in every frame.

        Raises:
            UsageError: the images' sides are not multiples of 32.
        """
        _, _, height, width = batch.shape
        self.check_sides(batch, STRIDE)
        valid = batch.valid_frames()
        exists = valid.any(dim=1)
        if exists.any():
            frames = Frames(valid[exists])
            references, masks = self._segment(batch.images[valid], batch.audio[exists], frames)
        else:
            layers, queries = self.options.decoder_layers, self.options.queries
            shape = (height // MASK_STRIDE, width // MASK_STRIDE)
            references = batch.images.new_zeros(layers, 0, queries, 2)
            masks = batch.images.new_zeros(layers, 0, queries, *shape)
        *earlier, last = (
            (restore(reference, valid), restore(mask, valid))
            for reference, mask in zip(references, masks, strict=True)
        )
        return CATROutput(*last, earlier=tuple(CATROutput(*layer) for layer in earlier))

    def _segment(self, images: Tensor, embeddings: Tensor, frames: Frames) -> tuple[Tensor, Tensor]:
        """Images (N,3,H,W) of the frames and embeddings (B,T,128) of their clips to what every layer says.

        Returns:
            Reference logits (L,N,Q,2) and mask logits (L,N,Q,H/16,W/16).
        """
        # Padding may hold anything; its keys are masked, but 0 times NaN would still be NaN.
        embeddings = embeddings.masked_fill(~frames.valid[..., None], 0.0)
        stride8, stride16, stride32 = (
            head(level) for head, level in zip(self.levels, self.backbone(images)[1:], strict=True)
        )
        shape: tuple[int, int] = stride8.shape[-2:]
        video = self.video_projection(stride8.flatten(2).transpose(1, 2))
        audio = self.audio_projection(embeddings)
        positions = sine_positions(
            *shape, self.options.dim, normalize=True, device=video.device, dtype=video.dtype
        ).flatten(0, 1)

        tokens = AudioTokens(frames, whole=self.options.audio_tokens == "clip")
        beside, mask = tokens.beside(audio), tokens.mask(video.shape[1])
        codes = F.pad(positions, (0, 0, 0, beside.shape[1]))  # sound has no position
        # Two encoders side by side, from the same tokens: one is read by the queries, one makes the map.
        memory = self.spatial_encoder(torch.cat((video, beside), dim=1), codes, mask)
        encoded = self.temporal_encoder(video, audio, positions, tokens, shape)

        feature = self.mask_feature(encoded, stride16, stride32)
        found = self.decoder(memory, codes, mask)
        masks = self.kernel_head(found) @ feature.flatten(2)
        return self.reference_head(found), masks.unflatten(-1, feature.shape[-2:])

    def predict(self, batch: Batch) -> Tensor:
        """Probability of sound (B,T,H,W): the mask of each frame's best query; zeros in missing frames."""
        _, _, height, width = batch.shape
        _, logits = self(batch).best()
        logits = F.interpolate(logits.float(), size=(height, width), mode="bilinear", align_corners=False)
        return logits.sigmoid() * batch.valid_frames()[..., None, None]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """``reference``, ``dice``, ``focal`` and ``bce``: sums over the decoder's layers, means over clips.

        Only frames that carry ground truth count, and one query is matched for all of a clip's.
        """
        output: CATROutput = self(batch)
        annotated, truth = batch.annotated_frames(), batch.ground_truth() > 0
        clips = annotated.any(dim=1).nonzero()[:, 0].tolist()
        nothing = 0 * (output.reference_logits.sum() + output.mask_logits.sum())  # part of the graph
        totals = dict.fromkeys(TERMS, nothing)
        for layer in (*output.earlier, output):
            for clip in clips:
                frames = annotated[clip]
                terms = clip_losses(
                    layer.reference_logits[clip, frames],
                    layer.mask_logits[clip, frames],
                    truth[clip, frames],
                    self.options,
                )
                for name, value in weigh(terms, self.options).items():
                    totals[name] = totals[name] + value / len(clips)
        return totals

    def load_upstream(self, state: Mapping[str, Tensor]) -> None:
        """Load the published checkpoint (S4 with PVT)."""
        if self.backbone_name != PUBLISHED:
            raise UsageError(
                f"CATR has no published checkpoints with the backbone {self.backbone_name}; "
                f"there is one with {PUBLISHED}."
            )
        load_renamed(
            self, state, upstream.rename, what=f"catr for {self.task.name} with {self.backbone_name}"
        )
