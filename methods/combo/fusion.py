"""Sound meets picture: the Bilateral-Fusion Module, and what the queries hear of it."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.nn.positions import sine_positions

from .options import FUSION_DIM, Options

#: Channels of a VGGish embedding.
AUDIO_DIM = 128


class BilateralFusion(nn.Module):
    """Lets the mask features and the sound of a frame change each other (paper section 3.2, equations 4-5).

    The same logits between a frame's pixels and its one sound token serve both directions. In the published
    code both softmaxes run over the pixels: a pixel hears about 1/P of the sound. Parts that the chosen
    directions do not need do not exist.

    Attributes:
        to_visual: whether pixels change (equation 4).
        to_audio: whether the sound changes (equation 5).
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        dim = options.dim
        self.to_visual = options.fusion in ("bilateral", "visual")
        self.to_audio = options.fusion in ("bilateral", "audio")
        self.heads = options.fusion_heads
        self.normed_residual = options.fusion_norm and options.normed_residual
        self.visual_softmax = options.visual_softmax
        self.placed_values = options.fusion_positions == "projections"
        self.limit = options.attention_limit
        self.dropout = options.fusion_dropout

        # The frame's sound is a single token: a softmax over sounds is 1, whatever the logits.
        attends = self.to_audio or self.visual_softmax == "positions"
        visual_is_read = attends or self.normed_residual
        embedded = options.fusion_level_embedding
        self.visual_embedding = nn.Parameter(torch.randn(1, dim)) if embedded else None
        placed = attends or self.placed_values
        self.audio_positions = nn.Parameter(torch.randn(1, AUDIO_DIM)) if placed else None
        self.visual_norm = nn.LayerNorm(dim) if options.fusion_norm and visual_is_read else nn.Identity()
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
        """Fused mask features and sound; what no direction changes comes back as it is.

        Args:
            features: (N,dim,h,w).
            audio: (N,128).

        Returns:
            The same shapes; a fused map in channels-last memory.
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
        fused, heard = features, audio
        if self.to_visual:
            if self.visual_softmax == "positions":
                weights = over_positions
            else:
                weights = pixels.new_ones(*pixels.shape[:2], self.heads)
            base = visual if self.normed_residual else pixels
            given = self._to_pixels(base, self._drop(weights), placed if self.placed_values else sound)
            fused = given.transpose(1, 2).unflatten(2, (height, width))
        if self.to_audio:
            base = sound if self.normed_residual else audio
            seen = visual + positions if self.placed_values else visual
            heard = self._to_sound(base, self._drop(over_positions), seen)
        return fused, heard

    def _logits(self, visual: Tensor, positions: Tensor, placed: Tensor) -> Tensor:
        """Attention logits (N,P,heads) of pixels (N,P,dim) with codes (P,dim) and placed sound (N,128)."""
        keys = self._split(self.key(placed)) * (FUSION_DIM // self.heads) ** -0.5
        # One key per frame and head: projecting it back onto the pixels' channels is exact, and P times
        # cheaper than projecting the pixels.
        folded = torch.einsum("nhd,hdc->nch", keys, self.query.weight.view(self.heads, -1, visual.shape[-1]))
        offset = torch.einsum("nhd,hd->nh", keys, self.query.bias.view(self.heads, -1))
        logits = visual @ folded + positions @ folded + offset[:, None]
        if self.limit is None:
            return logits
        return logits.clamp(-self.limit, self.limit)

    def _to_pixels(self, pixels: Tensor, weights: Tensor, sound: Tensor) -> Tensor:
        """Pixels (N,P,dim) with the sound (N,128) added as ``weights`` (N,P,heads) say (equation 4)."""
        values = self._split(self.audio_value(sound))
        # A head gives every pixel a multiple of one vector, so the output projection needs that vector only.
        out = self.visual_out.weight.view(-1, self.heads, FUSION_DIM // self.heads)
        given = torch.einsum("nhd,chd->nhc", values, out)
        bias: Tensor = self.visual_out.bias
        if self.visual_gamma is not None:
            given, bias = given * self.visual_gamma, self.visual_gamma * bias
        return pixels + (weights @ given + bias)

    def _to_sound(self, sound: Tensor, weights: Tensor, visual: Tensor) -> Tensor:
        """Sound (N,128) with the pixels (N,P,dim) added as ``weights`` (N,P,heads) say (equation 5)."""
        # The projection of a weighted sum of pixels is the weighted sum of projections; dropout leaves
        # weights that do not sum to 1, so the bias is weighted, too.
        means = weights.transpose(1, 2) @ visual  # (N,heads,dim)
        kernel = self.visual_value.weight.view(self.heads, -1, means.shape[-1])
        read = torch.einsum("nhc,hdc->nhd", means, kernel)
        read = read + self.visual_value.bias.view(self.heads, -1) * weights.sum(dim=1)[..., None]
        update: Tensor = self.audio_out(read.flatten(1))
        return sound + (update if self.audio_gamma is None else self.audio_gamma * update)

    def _drop(self, weights: Tensor) -> Tensor:
        return F.dropout(weights, self.dropout, self.training)

    def _split(self, values: Tensor) -> Tensor:
        """(N,256) -> (N,heads,256/heads)."""
        return values.unflatten(-1, (self.heads, -1))


class AudioQueries(nn.Module):
    """The sound of a frame as object queries (paper section 3.2, last paragraph, and table 6).

    It is added to learned queries (``add``), or repeated and alone (``all``); learned positions, which the
    decoder adds wherever queries attend, tell queries apart in either case.
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
        """Sound (N,128) of all frames of the batch -> queries (N,Q,dim)."""
        heard: Tensor = self.mlp(audio)
        heard = heard[audio_sources(len(audio), len(self.positions), self.pairing, audio.device)]
        return heard if self.queries is None else self.queries + heard


def audio_sources(
    frames: int,
    queries: int,
    pairing: Literal["scrambled", "own"],
    device: torch.device | str | None = None,
) -> Tensor:
    """The frame whose sound each query hears, (frames, queries) int64.

    The published code repeats the sounds to (frames, queries) and reshapes that to (queries, frames) where a
    transpose is meant: query ``q`` of frame ``n`` gets row ``q * frames + n`` of the list, which belongs to
    frame ``(q * frames + n) // queries``. What a frame's queries hear so depends on the other frames of the
    batch, and the same queries hear (nearly) the same frames everywhere.
    """
    frame = torch.arange(frames, device=device)[:, None]
    query = torch.arange(queries, device=device)
    if pairing == "own":
        return frame.expand(-1, queries)
    return (query * frames + frame) // queries


def _gamma(start: float | None, size: int) -> nn.Parameter | None:
    """What an update is multiplied with, channel by channel; ``None``: nothing."""
    return None if start is None else nn.Parameter(torch.full((size,), start))
