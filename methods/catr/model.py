"""CATR's network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.nn.backbone import build_backbone
from avsbench_harness.nn.dilated import DilatedSum
from avsbench_harness.nn.model import Model
from avsbench_harness.nn.positions import sine_positions
from avsbench_harness.tasks import Task
from avsbench_harness.weights.strict import load_renamed

from . import upstream
from .decoder import MaskFeature, QueryDecoder
from .encoder import AudioProjection, AudioTokens, FusionEncoder, SpatialEncoder
from .frames import Frames, restore
from .loss import TERMS, Targets, clip_losses, weigh
from .options import Options

#: Channels of a VGGish embedding.
AUDIO_DIM = 128
#: Stride of the coarsest feature map: the sides of an image must be multiples of it.
STRIDE = 32
#: The backbone of the published checkpoint.
PUBLISHED = "pvt"


@dataclass(frozen=True)
class CATROutput:
    """Raw outputs; frames that do not exist are zeros.

    Attributes:
        reference_logits: (B,T,Q,K), before the softmax. For s4 and ms3 K is 2, and output 0 says that the
            query's object sounds; for avss K is 71, and output c says that it is of class c + 1. The last
            output says that it does not sound. All zeros without queries (``decoding: direct``, Q = 1).
        mask_logits: (B,T,Q,h,w), before the sigmoid, at the stride ``mask_stride``.
        earlier: the same of the decoder's earlier layers, which the loss also looks at.
    """

    reference_logits: Tensor
    mask_logits: Tensor
    earlier: tuple[CATROutput, ...] = ()

    def best(
        self, selection: Literal["frame", "clip"] = "frame", valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The query that most probably is a sounding object of each class (paper equation 10).

        Args:
            selection: choose frame by frame (published code), or once for the clip, by the mean over its
                frames (paper).
            valid: (B,T), frames that exist; ``None``: all.

        Returns:
            For each of the K-1 classes: the query (B,T,K-1) int64, its probability in the frame (B,T,K-1),
            and its mask logits (B,T,K-1,h,w).
        """
        probability = self.reference_logits.float().softmax(dim=-1)[..., :-1]
        scores = probability
        if selection == "clip":
            if valid is not None:  # a sum orders queries as the mean does
                scores = scores * valid[..., None, None]
            scores = scores.sum(dim=1, keepdim=True).expand_as(probability)
        query = scores.argmax(dim=2)
        index = query[..., None, None].expand(-1, -1, -1, *self.mask_logits.shape[-2:])
        return query, probability.gather(2, query[:, :, None])[:, :, 0], self.mask_logits.gather(2, index)


class CATRModel(Model):
    """CATR (Li et al., ACM MM 2023); options tell what its authors released from what the paper says.

    Clips are independent of each other, except through batch normalisation in training. The frames of a clip
    meet in its sound, and through it in the map that masks are read from.
    """

    def __init__(self, task: Task, backbone: str, options: Options) -> None:
        """Random weights.

        Args:
            task: decides the outputs of the reference head.
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
        self.audio_projection = AudioProjection(AUDIO_DIM, options) if options.audio else None
        self.spatial_encoder = SpatialEncoder(options) if options.encoder == "parallel" else None
        self.temporal_encoder = FusionEncoder(options) if options.encoder != "none" else None
        self.mask_feature = MaskFeature(options)
        #: Outputs of the reference head: sound or the classes but the background, and "does not sound".
        self.outputs = task.channels if task.semantic else 2
        channels = options.masks_channels
        if options.decoding == "direct":
            self.mask_head = nn.Conv2d(channels, 1, 1)
        else:
            self.decoder = QueryDecoder(options)
            self.reference_head = nn.Linear(dim, self.outputs)
            self.kernel_head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, channels))
        self._initialise()

    def _initialise(self) -> None:
        """As in DETR: Xavier-uniform matrices in the transformers, N(0, 1) queries."""
        parts: list[nn.Module] = [] if self.spatial_encoder is None else [self.spatial_encoder]
        if self.temporal_encoder is not None:
            parts.append(self.temporal_encoder.layers)
        if self.options.decoding == "queries":
            parts.append(self.decoder)
        for part in parts:
            for parameter in part.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)
        if self.options.decoding == "queries":
            nn.init.normal_(self.decoder.queries)

    def forward(self, batch: Batch) -> CATROutput:
        """Masks of all queries, and which of them sound, in every frame.

        Raises:
            UsageError: the images' sides are not multiples of 32.
        """
        return self._output(batch, batch.valid_frames())

    def _output(self, batch: Batch, wanted: Tensor) -> CATROutput:
        """The raw outputs of some of the frames that exist, (B,T) bool; zeros in the others."""
        _, _, height, width = batch.shape
        self.check_sides(batch, STRIDE)
        valid = batch.valid_frames()
        exists = valid.any(dim=1)
        if wanted.any():
            frames = Frames(valid[exists])
            rows = None if torch.equal(wanted, valid) else wanted[valid]
            references, masks = self._segment(batch.images[valid], batch.audio[exists], frames, rows)
        else:
            direct, stride = self.options.decoding == "direct", self.options.mask_stride
            shape = (1, 0, 1) if direct else (self.options.decoder_layers, 0, self.options.queries)
            references = batch.images.new_zeros(*shape, self.outputs)
            masks = batch.images.new_zeros(*shape, height // stride, width // stride)
        *earlier, last = (
            (restore(reference, wanted), restore(mask, wanted))
            for reference, mask in zip(references, masks, strict=True)
        )
        return CATROutput(*last, earlier=tuple(CATROutput(*layer) for layer in earlier))

    def _segment(
        self, images: Tensor, embeddings: Tensor, frames: Frames, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What every layer of the decoder says.

        Args:
            images: (N,3,H,W) of the frames.
            embeddings: (B,T,128) of their clips.
            frames: where the frames belong.
            rows: (N,) bool, the M frames that are decoded; ``None``: all.

        Returns:
            Reference logits (L,M,Q,K) and mask logits (L,M,Q,h,w).
        """
        stride8, stride16, stride32 = (
            head(level) for head, level in zip(self.levels, self.backbone(images)[1:], strict=True)
        )
        shape: tuple[int, int] = stride8.shape[-2:]
        video = self.video_projection(stride8.flatten(2).transpose(1, 2))
        audio = None
        if self.audio_projection is not None:
            # Padding may hold anything; its keys are masked, but 0 times NaN would still be NaN.
            audio = self.audio_projection(embeddings.masked_fill(~frames.valid[..., None], 0.0))
        positions = sine_positions(
            *shape, self.options.dim, normalize=True, device=video.device, dtype=video.dtype
        ).flatten(0, 1)

        tokens = AudioTokens(frames, whole=self.options.audio_tokens == "clip")
        encoded = self._encode(video, audio, positions, tokens, shape)
        if rows is not None:
            stride16, stride32, encoded = stride16[rows], stride32[rows], encoded[rows]
        feature = self.mask_feature(encoded, stride16, stride32)
        if self.options.decoding == "direct":
            masks = self.mask_head(feature)[None]
            return masks.new_zeros(*masks.shape[:3], self.outputs), masks

        if self.spatial_encoder is None:
            memory, codes, mask = encoded.flatten(2).transpose(1, 2), positions, None
        else:
            memory, codes, mask = self._remember(self.spatial_encoder, video, audio, positions, tokens, rows)
        sound = None
        if audio is not None and self.options.audio_constrained_queries:
            sound = frames.pack(audio) if rows is None else frames.pack(audio)[rows]
        found = self.decoder(memory, codes, mask, sound)
        masks = self.kernel_head(found) @ feature.flatten(2)
        return self.reference_head(found), masks.unflatten(-1, feature.shape[-2:])

    def _encode(
        self,
        video: Tensor,
        audio: Tensor | None,
        positions: Tensor,
        tokens: AudioTokens,
        shape: tuple[int, int],
    ) -> Tensor:
        """Pixels (N,h*w,dim) and sound (B,T,dim) -> a map (N,dim,h,w) for the masks."""
        if self.temporal_encoder is not None:
            encoded: Tensor = self.temporal_encoder(video, audio, positions, tokens, shape)
            return encoded
        if audio is not None:  # nothing but a sum: the baseline of the paper's Table 3
            video = video + tokens.frames.pack(audio)[:, None]
        return video.transpose(1, 2).unflatten(2, shape)

    def _remember(
        self,
        encoder: nn.Module,
        video: Tensor,
        audio: Tensor | None,
        positions: Tensor,
        tokens: AudioTokens,
        rows: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the released queries read: tokens (M,S,dim), their codes (S,dim), which exist (M,1,1,S).

        A second stack beside the one that makes the map, from the same tokens; frames do not meet in it.
        """
        codes, mask = positions, None
        if audio is not None:
            beside, mask = tokens.beside(audio), tokens.mask(video.shape[1])
            codes = F.pad(positions, (0, 0, 0, beside.shape[1]))  # sound has no position
            video = torch.cat((video, beside), dim=1)
        if rows is not None:
            video, mask = video[rows], None if mask is None else mask[rows]
        return encoder(video, codes, mask), codes, mask

    def predict(self, batch: Batch) -> Tensor:
        """Probability of sound (B,T,H,W), or for avss class scores (B,T,71,H,W); zeros in missing frames.

        The mask of the best query (paper equation 10). With classes there is one for each: its mask times
        its probability is the score, and what the highest leaves of 1 is the background's.
        """
        clips, frames, height, width = batch.shape
        valid = batch.valid_frames()
        _, probability, logits = self(batch).best(self.options.selection, valid)
        logits = F.interpolate(
            logits.float().flatten(0, 1), size=(height, width), mode="bilinear", align_corners=False
        )
        masks = logits.sigmoid_().unflatten(0, (clips, frames))
        if not self.task.semantic:
            return masks[:, :, 0] * valid[..., None, None]
        scores = masks * probability[..., None, None]
        background = 1 - scores.amax(dim=2, keepdim=True)
        return torch.cat((background, scores), dim=2) * valid[..., None, None, None]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """``reference``, ``dice``, ``focal`` and ``bce``: sums over the decoder's layers, means over clips.

        Only frames that carry ground truth count; no others are decoded.
        """
        truth, annotated = batch.ground_truth(), batch.annotated_frames()
        clips = annotated.any(dim=1).nonzero()[:, 0].tolist()
        output = self._output(batch, annotated if clips else batch.valid_frames())
        totals = dict.fromkeys(TERMS, self._nothing(output))
        for clip in clips:
            frames = annotated[clip]
            targets = Targets.of(truth[clip, frames], self.outputs, self.options)
            for layer in (*output.earlier, output):
                terms = clip_losses(
                    layer.reference_logits[clip, frames],
                    layer.mask_logits[clip, frames],
                    targets,
                    self.options,
                )
                for name, value in weigh(terms, self.options).items():
                    totals[name] = totals[name] + value / len(clips)
        return totals

    def loss_counts(self, batch: Batch) -> dict[str, Tensor | None]:
        """All terms are averaged over the clips that carry ground truth."""
        return dict.fromkeys(TERMS, batch.annotated_frames().any(dim=1).sum())

    def _nothing(self, output: CATROutput) -> Tensor:
        """Zero, with a gradient even for a batch without any frame."""
        nothing = 0 * (output.reference_logits.sum() + output.mask_logits.sum()).float()
        if not nothing.requires_grad and torch.is_grad_enabled():
            for parameter in self.parameters():
                nothing = nothing + 0 * parameter.sum()
        return nothing

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
