"""CATR's network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.nn.backbone import build_backbone
from avsbench_harness.nn.dilated import DilatedSum
from avsbench_harness.nn.frames import restore_frames
from avsbench_harness.nn.model import Model
from avsbench_harness.nn.positions import sine_positions
from avsbench_harness.tasks import Task

from . import upstream
from .decoder import MaskFeature, QueryDecoder
from .encoder import AudioProjection, AudioTokens, FusionEncoder, SpatialEncoder
from .frames import Frames
from .loss import TERMS, Targets, clip_losses, weigh
from .options import Options

#: Channels of a VGGish embedding.
AUDIO_DIM = 128
#: Stride of the coarsest feature map: the sides of the backbone's input must be multiples of it.
STRIDE = 32


@dataclass(frozen=True)
class CATROutput:
    """Raw outputs; padded frames are zero.

    Attributes:
        reference_logits: (B,T,Q,K), before the softmax. For s4 and ms3 K is 2, and output 0 is "the query's
            object sounds"; for avss K is 71, and output c is class c + 1. The last output is "silent". All
            zeros without queries (``decoding: direct``, Q = 1).
        mask_logits: (B,T,Q,h,w), before the sigmoid, at the stride ``mask_stride`` of the backbone's input.
        earlier: outputs of the decoder's earlier layers, for the loss.
    """

    reference_logits: Tensor
    mask_logits: Tensor
    earlier: tuple[CATROutput, ...] = ()

    def best(
        self, selection: Literal["frame", "clip"] = "frame", valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the most probable query of each class (paper equation 10).

        Args:
            selection: choose per frame (published code), or once per clip, by the mean over its frames
                (paper).
            valid: (B,T) bool; ``None``: all frames.

        Returns:
            For each of the K-1 classes: the query (B,T,K-1) int64, its probability in the frame (B,T,K-1),
            and its mask logits (B,T,K-1,h,w).
        """
        probability = self.reference_logits.float().softmax(dim=-1)[..., :-1]
        scores = probability
        if selection == "clip":
            if valid is not None:  # the sum over valid frames has the same maximum as the mean
                scores = scores * valid[..., None, None]
            scores = scores.sum(dim=1, keepdim=True).expand_as(probability)
        query = scores.argmax(dim=2)
        index = query[..., None, None].expand(-1, -1, -1, *self.mask_logits.shape[-2:])
        return query, probability.gather(2, query[:, :, None])[:, :, 0], self.mask_logits.gather(2, index)


class CATRModel(Model):
    """CATR (Li et al., ACM MM 2023); differences between released code and paper are options.

    Clips are independent of each other, except for batch normalisation in training. The frames of a clip
    interact through its audio tokens, and thereby in the mask feature.
    """

    def __init__(self, task: Task, backbone: str, options: Options) -> None:
        """Initialise with random weights.

        Args:
            task: determines the outputs of the reference head.
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
        channels = options.mask_channels
        if options.decoding == "direct":
            self.mask_head = nn.Conv2d(channels, 1, 1)
        else:
            self.decoder = QueryDecoder(options)
            self.reference_head = nn.Linear(dim, self.outputs)
            self.kernel_head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, channels))
        self._initialise()

    def _initialise(self) -> None:
        """As published: transformers Xavier-uniform, mask decoder Kaiming-uniform, queries N(0, 1).

        The transformers include the convolutions of the gate, but not the projection of the audio.
        """
        direct = self.options.decoding == "direct"
        for part in (self.spatial_encoder, self.temporal_encoder, None if direct else self.decoder):
            for parameter in () if part is None else part.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)
        for module in (*self.mask_feature.modules(), *([self.mask_head] if direct else [])):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        if not direct and self.decoder.queries is not None:
            nn.init.normal_(self.decoder.queries)

    def forward(self, batch: Batch) -> CATROutput:
        """Return the mask and reference logits of all queries in every frame.

        Raises:
            UsageError: the sides of the backbone's input are not multiples of 32.
        """
        return self._output(batch, batch.valid_frames())

    def _output(self, batch: Batch, decoded: Tensor) -> CATROutput:
        """Return the raw outputs of the valid frames marked in ``decoded`` (B,T); zeros in the others."""
        scale = self.options.input_scale
        self.check_sides(batch, STRIDE // math.gcd(STRIDE, scale))
        height, width = (scale * side for side in batch.shape[2:])
        valid = batch.valid_frames()
        nonempty = valid.any(dim=1)
        if decoded.any():
            frames = Frames(valid[nonempty])
            rows = None if torch.equal(decoded, valid) else decoded[valid]
            references, masks = self._segment(self.maps(batch, valid), batch.audio[nonempty], frames, rows)
        else:
            direct, stride = self.options.decoding == "direct", self.options.mask_stride
            pixels = height // STRIDE * (width // STRIDE)
            queries = pixels if self.options.query_source == "video" else self.options.queries
            shape = (1, 0, 1) if direct else (self.options.decoder_layers, 0, queries)
            references = batch.images.new_zeros(*shape, self.outputs)
            masks = batch.images.new_zeros(*shape, height // stride, width // stride)
        *earlier, last = (
            (restore_frames(reference, decoded), restore_frames(mask, decoded))
            for reference, mask in zip(references, masks, strict=True)
        )
        return CATROutput(*last, earlier=tuple(CATROutput(*layer) for layer in earlier))

    def encode(self, images: Tensor, source: str = "images") -> list[Tensor]:
        """Return the backbone's maps of images (N,3,H,W), enlarged by ``input_scale``."""
        if self.options.input_scale > 1:
            height, width = (self.options.input_scale * side for side in images.shape[2:])
            images = F.interpolate(images, (height, width), mode="bilinear", align_corners=False)
        return super().encode(images, source)

    def _segment(
        self, levels: Sequence[Tensor], embeddings: Tensor, frames: Frames, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the outputs of every layer of the decoder.

        Args:
            levels: four maps (N,C,h,w) of the valid frames.
            embeddings: (B,T,128) audio embeddings of their clips.
            frames: positions of the frames in their clips.
            rows: (N,) bool, the M frames that are decoded; ``None``: all.

        Returns:
            Reference logits (L,M,Q,K) and mask logits (L,M,Q,h,w).
        """
        stride8, stride16, stride32 = (
            head(level) for head, level in zip(self.levels, levels[1:], strict=True)
        )
        shape: tuple[int, int] = stride8.shape[-2:]
        video = self.video_projection(stride8.flatten(2).transpose(1, 2))
        audio = None
        if self.audio_projection is not None:
            # Padded frames may hold any values; their keys are masked, but 0 times NaN is NaN.
            audio = self.audio_projection(embeddings.masked_fill(~frames.valid[..., None], 0.0))
        positions = self._positions(stride8)
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
            memory, codes, mask = self._memory(self.spatial_encoder, video, audio, positions, tokens, rows)
        initial = queries = None
        if self.options.query_source == "video":
            initial = stride32.flatten(2).transpose(1, 2)
            queries = self._positions(stride32)
        elif self.options.query_source == "audio":
            assert audio is not None  # Options.check
            initial = (frames.pack(audio) if rows is None else frames.pack(audio)[rows])[:, None]
        found = self.decoder(memory, codes, mask, initial, queries)
        masks = self.kernel_head(found) @ feature.flatten(2)
        return self.reference_head(found), masks.unflatten(-1, feature.shape[-2:])

    @staticmethod
    def _positions(maps: Tensor) -> Tensor:
        """Return the sine position codes (h*w,dim) of maps (N,dim,h,w)."""
        dim, height, width = maps.shape[1:]
        codes = sine_positions(height, width, dim, normalize=True, device=maps.device, dtype=maps.dtype)
        return codes.flatten(0, 1)

    def _encode(
        self,
        video: Tensor,
        audio: Tensor | None,
        positions: Tensor,
        tokens: AudioTokens,
        shape: tuple[int, int],
    ) -> Tensor:
        """Map pixels (N,h*w,dim) and audio (B,T,dim) to the map (N,dim,h,w) for the masks."""
        if self.temporal_encoder is not None:
            encoded: Tensor = self.temporal_encoder(video, audio, positions, tokens, shape)
            return encoded
        if audio is not None:
            video = video + tokens.frames.pack(audio)[:, None]
        return video.transpose(1, 2).unflatten(2, shape)

    def _memory(
        self,
        encoder: nn.Module,
        video: Tensor,
        audio: Tensor | None,
        positions: Tensor,
        tokens: AudioTokens,
        rows: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the tokens that released queries attend to: tokens (M,S,dim), codes (S,dim), mask (M,1,1,S).

        They come from a second stack over the same tokens as the map, in which frames are independent.
        """
        codes, mask = positions, None
        if audio is not None:
            appended, mask = tokens.per_frame(audio), tokens.mask(video.shape[1])
            codes = F.pad(positions, (0, 0, 0, appended.shape[1]))  # audio tokens have no position code
            video = torch.cat((video, appended), dim=1)
        if rows is not None:
            video, mask = video[rows], None if mask is None else mask[rows]
        return encoder(video, codes, mask), codes, mask

    def predict(self, batch: Batch) -> Tensor:
        """Return probabilities of sound (B,T,H,W), or class scores (B,T,71,H,W); padded frames are zero.

        The mask of the best query (paper equation 10), whose logits are resized to the images, not to the
        backbone's input. For avss each class has its best query: its score is the query's mask times its
        probability, and the background's score is 1 minus the highest of these.
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
        """Return ``reference``, ``dice``, ``focal`` and ``bce``, summed over layers and averaged over clips.

        Only annotated frames are decoded.
        """
        truth, annotated = batch.ground_truth(), batch.annotated_frames()
        clips = annotated.any(dim=1).nonzero()[:, 0].tolist()
        output = self._output(batch, annotated if clips else batch.valid_frames())
        # Zero losses that are part of the graph: the batch may have no annotated frame.
        zero = 0 * (output.reference_logits.sum() + output.mask_logits.sum()).float()
        totals = dict.fromkeys(TERMS, zero if zero.requires_grad else self.zero_loss())
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
        """Return the number of clips with annotated frames, over which all terms are averaged."""
        return dict.fromkeys(TERMS, batch.annotated_frames().any(dim=1).sum())

    def load_upstream(self, state: Mapping[str, Tensor]) -> None:
        """Load the published weights (S4 with PVT)."""
        self.load_published(state, upstream.rename, backbone=self.backbone_name, backbones=upstream.BACKBONES)
