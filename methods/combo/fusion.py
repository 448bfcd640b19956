"""The Bilateral-Fusion Module and the audio queries."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.nn.positions import sine_positions

from .options import FUSION_DIM, Options

#: Channels of a VGGish embedding.
AUDIO_DIM = 128


class PixelEmbedding(nn.Module):
    """A learned vector, added to all pixels; what is left of the published fusion when it is off."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.visual_embedding = nn.Parameter(torch.randn(1, options.dim))

    def forward(self, features: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return mask features (N,dim,h,w) plus the vector, and the audio (N,128) unchanged."""
        return features + self.visual_embedding[..., None, None], audio


class BilateralFusion(nn.Module):
    """Bidirectional cross-attention of mask features and audio of a frame (paper section 3.2, equations 4-5).

    Both directions share the attention logits between a frame's pixels and its one audio token. In the
    published code both softmaxes run over the pixels, so that a pixel receives about 1/P of the audio.
    Modules that the chosen directions do not need are not created.

    Attributes:
        to_visual: whether the pixels are updated (equation 4).
        to_audio: whether the audio is updated (equation 5).
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        dim = options.dim
        # The published code for audio alone keeps its input pixels, which the fusion has overwritten by then.
        overwritten = options.fusion == "audio" and options.fusion_overwrites
        self.to_visual = options.fusion in ("bilateral", "visual") or overwritten
        self.to_audio = options.fusion in ("bilateral", "audio")
        self.heads = options.fusion_heads
        self.normed_residual = options.fusion_norm and options.normed_residual
        self.visual_softmax = options.visual_softmax
        self.placed_values = options.fusion_positions == "projections"
        self.limit = options.attention_limit
        self.dropout = options.fusion_dropout

        # A frame has a single audio token: a softmax over audio tokens is 1, whatever the logits.
        attends = self.to_audio or self.visual_softmax == "positions"
        uses_visual = attends or self.normed_residual
        embedded = options.fusion_level_embedding
        self.visual_embedding = nn.Parameter(torch.randn(1, dim)) if embedded else None
        placed = attends or self.placed_values
        self.audio_positions = nn.Parameter(torch.randn(1, AUDIO_DIM)) if placed else None
        self.visual_norm = nn.LayerNorm(dim) if options.fusion_norm and uses_visual else nn.Identity()
        self.audio_norm = nn.LayerNorm(AUDIO_DIM) if options.fusion_norm else nn.Identity()
        if attends:
            self.query = nn.Linear(dim, FUSION_DIM)
            self.key = nn.Linear(AUDIO_DIM, FUSION_DIM)
        self.attends = attends
        if self.to_audio:
            self.visual_value = nn.Linear(dim, FUSION_DIM)
            self.audio_out = nn.Linear(FUSION_DIM, AUDIO_DIM)
            self.audio_gamma = _gamma(options.fusion_gamma, AUDIO_DIM)
        if self.to_visual:
            self.audio_value = nn.Linear(AUDIO_DIM, FUSION_DIM)
            self.visual_out = nn.Linear(FUSION_DIM, dim)
            self.visual_gamma = _gamma(options.fusion_gamma, dim)
        for module in self.children():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return fused mask features and audio; an input without update is returned unchanged.

        Args:
            features: (N,dim,h,w).
            audio: (N,128).

        Returns:
            The same shapes; fused mask features are in channels-last memory format.
        """
        height, width = features.shape[-2:]
        pixels = features.flatten(2).transpose(1, 2)
        if self.visual_embedding is not None:
            pixels = pixels + self.visual_embedding
        visual, sound = self.visual_norm(pixels), self.audio_norm(audio)
        placed = sound if self.audio_positions is None else sound + self.audio_positions
        if self.attends:
            positions = sine_positions(
                height, width, features.shape[1], normalize=True, device=features.device, dtype=visual.dtype
            ).flatten(0, 1)
            logits = self._logits(visual, positions, placed)
            over_positions = logits.softmax(dim=1)
        fused, updated = features, audio
        if self.to_visual:
            if self.visual_softmax == "positions":
                weights = over_positions
            else:
                weights = pixels.new_ones(*pixels.shape[:2], self.heads)
            base = visual if self.normed_residual else pixels
            pixels = self._to_pixels(base, self._drop(weights), placed if self.placed_values else sound)
            fused = pixels.transpose(1, 2).unflatten(2, (height, width))
        if self.to_audio:
            base = sound if self.normed_residual else audio
            values = visual + positions if self.placed_values else visual
            updated = self._to_audio(base, self._drop(over_positions), values)
        return fused, updated

    def _logits(self, visual: Tensor, positions: Tensor, placed: Tensor) -> Tensor:
        """Return logits (N,P,heads) of pixels (N,P,dim) with position codes (P,dim) and audio (N,128)."""
        keys = self._split(self.key(placed)) * (FUSION_DIM // self.heads) ** -0.5
        # One key per frame and head: projecting it onto the pixels' channels is exact, and P times cheaper
        # than projecting the pixels.
        folded = torch.einsum("nhd,hdc->nch", keys, self.query.weight.view(self.heads, -1, visual.shape[-1]))
        offset = torch.einsum("nhd,hd->nh", keys, self.query.bias.view(self.heads, -1))
        logits = visual @ folded + positions @ folded + offset[:, None]
        if self.limit is None:
            return logits
        return logits.clamp(-self.limit, self.limit)

    def _to_pixels(self, pixels: Tensor, weights: Tensor, sound: Tensor) -> Tensor:
        """Add the audio (N,128), weighted by ``weights`` (N,P,heads), to pixels (N,P,dim) (equation 4)."""
        values = self._split(self.audio_value(sound))
        # A head adds a multiple of one vector to every pixel, so only that vector is projected.
        out = self.visual_out.weight.view(-1, self.heads, FUSION_DIM // self.heads)
        update = torch.einsum("nhd,chd->nhc", values, out)
        bias: Tensor = self.visual_out.bias
        if self.visual_gamma is not None:
            update, bias = update * self.visual_gamma, self.visual_gamma * bias
        return pixels + (weights @ update + bias)

    def _to_audio(self, sound: Tensor, weights: Tensor, visual: Tensor) -> Tensor:
        """Add the pixels (N,P,dim), weighted by ``weights`` (N,P,heads), to audio (N,128) (equation 5)."""
        # The projection of a weighted sum of pixels is the weighted sum of projections. After dropout the
        # weights do not sum to 1, so the bias is weighted as well.
        means = weights.transpose(1, 2) @ visual  # (N,heads,dim)
        kernel = self.visual_value.weight.view(self.heads, -1, means.shape[-1])
        values = torch.einsum("nhc,hdc->nhd", means, kernel)
        values = values + self.visual_value.bias.view(self.heads, -1) * weights.sum(dim=1)[..., None]
        update: Tensor = self.audio_out(values.flatten(1))
        return sound + (update if self.audio_gamma is None else self.audio_gamma * update)

    def _drop(self, weights: Tensor) -> Tensor:
        return F.dropout(weights, self.dropout, self.training)

    def _split(self, values: Tensor) -> Tensor:
        """Split (N,256) into (N,heads,256/heads)."""
        return values.unflatten(-1, (self.heads, -1))


def build_fusion(options: Options) -> nn.Module | None:
    """Return the fusion that the options select, ``None`` if it changes nothing."""
    if options.fusion != "none":
        return BilateralFusion(options)
    return PixelEmbedding(options) if options.fusion_level_embedding else None


class AudioQueries(nn.Module):
    """Object queries from the audio of a frame (paper section 3.2, last paragraph, and table 6).

    The projected audio is added to learned queries (``add``), or repeated (``all``). In both cases learned
    positions, which the decoder adds in every attention, distinguish the queries.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.pairing = options.audio_pairing
        learned = options.audio_queries == "add"
        self.queries = nn.Parameter(torch.randn(options.queries, options.dim)) if learned else None
        self.positions = nn.Parameter(torch.randn(options.queries, options.dim))
        hidden = options.audio_mlp_dim
        self.mlp = nn.Sequential(
            nn.Linear(AUDIO_DIM, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, options.dim),
        )

    def forward(self, audio: Tensor) -> Tensor:
        """Map the audio (N,128) of all frames of the batch to queries (N,Q,dim)."""
        projected: Tensor = self.mlp(audio)
        projected = projected[audio_sources(len(audio), len(self.positions), self.pairing, audio.device)]
        return projected if self.queries is None else self.queries + projected


def audio_sources(
    frames: int,
    queries: int,
    pairing: Literal["scrambled", "own"],
    device: torch.device | str | None = None,
) -> Tensor:
    """Return the frame whose audio each query uses, (frames, queries) int64.

    The published code repeats the audio to (frames, queries) and reshapes that to (queries, frames) where a
    transpose is intended: query ``q`` of frame ``n`` gets row ``q * frames + n`` of the list, which belongs
    to frame ``(q * frames + n) // queries``. The audio of a frame's queries therefore depends on the other
    frames of the batch, and the same query uses (nearly) the same audio in every frame.
    """
    frame = torch.arange(frames, device=device)[:, None]
    query = torch.arange(queries, device=device)
    if pairing == "own":
        return frame.expand(-1, queries)
    return (query * frames + frame) // queries


def _gamma(start: float | None, size: int) -> nn.Parameter | None:
    """Return learned factors per channel for an update; ``None`` without."""
    return None if start is None else nn.Parameter(torch.full((size,), start))
