"""Sound meets picture: the Bilateral-Fusion Module, and what the queries hear of it."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.nn.positions import sine_positions

from .options import Options

#: Channels of a VGGish embedding.
AUDIO_DIM = 128
#: Attention heads of the fusion, and the channels of all of them together.
HEADS, EMBED_DIM = 8, 256
#: What the fusion adds is scaled by this at first.
GAMMA = 1e-4


class BilateralFusion(nn.Module):
    """Lets the mask features and the sound of a frame change each other (paper section 3.2, equations 4-5).

    The same logits between a frame's pixels and its one sound token serve both directions. In the published
    code both softmaxes run over the pixels: a pixel hears about 1/P of the sound.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        dim = options.dim
        self.normed_residual = options.normed_residual
        self.visual_softmax = options.visual_softmax
        self.limit = options.attention_limit
        self.dropout = options.fusion_dropout
        self.visual_embedding = nn.Parameter(torch.randn(1, dim))
        self.audio_positions = nn.Parameter(torch.randn(1, AUDIO_DIM))
        self.visual_norm = nn.LayerNorm(dim)
        self.audio_norm = nn.LayerNorm(AUDIO_DIM)
        self.query = nn.Linear(dim, EMBED_DIM)
        self.key = nn.Linear(AUDIO_DIM, EMBED_DIM)
        self.visual_value = nn.Linear(dim, EMBED_DIM)
        self.audio_value = nn.Linear(AUDIO_DIM, EMBED_DIM)
        self.visual_out = nn.Linear(EMBED_DIM, dim)
        self.audio_out = nn.Linear(EMBED_DIM, AUDIO_DIM)
        self.visual_gamma = nn.Parameter(torch.full((dim,), GAMMA))
        self.audio_gamma = nn.Parameter(torch.full((AUDIO_DIM,), GAMMA))
        for module in self.children():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Fused mask features and sound.

        Args:
            features: (N,dim,h,w).
            audio: (N,128).

        Returns:
            The same shapes; the map in channels-last memory.
        """
        shape = features.shape[-2:]
        pixels = features.flatten(2).transpose(1, 2) + self.visual_embedding
        visual, sound = self.visual_norm(pixels), self.audio_norm(audio)
        positions = sine_positions(
            *shape, features.shape[1], normalize=True, device=features.device, dtype=visual.dtype
        )
        logits = self._logits(visual, positions.flatten(0, 1), sound)
        over_positions = logits.softmax(dim=1)
        # The frame's sound is a single token: a softmax over sounds is 1 everywhere.
        over = over_positions if self.visual_softmax == "positions" else torch.ones_like(logits)
        fused = self._to_pixels(visual if self.normed_residual else pixels, self._drop(over), sound)
        heard = self._to_sound(sound if self.normed_residual else audio, self._drop(over_positions), visual)
        return fused.transpose(1, 2).unflatten(2, shape), heard

    def _logits(self, visual: Tensor, positions: Tensor, sound: Tensor) -> Tensor:
        """Attention logits (N,P,heads) of pixels (N,P,dim) with codes (P,dim) and sound (N,128)."""
        keys = _heads(self.key(sound + self.audio_positions)) * (EMBED_DIM // HEADS) ** -0.5
        # One key per frame and head: projecting it back onto the pixels' channels is exact, and P times
        # cheaper than projecting the pixels.
        folded = torch.einsum("nhd,hdc->nch", keys, self.query.weight.view(HEADS, -1, visual.shape[-1]))
        offset = torch.einsum("nhd,hd->nh", keys, self.query.bias.view(HEADS, -1))
        logits = visual @ folded + positions @ folded + offset[:, None]
        if self.limit is None:
            return logits
        return logits.clamp(-self.limit, self.limit)

    def _to_pixels(self, pixels: Tensor, weights: Tensor, sound: Tensor) -> Tensor:
        """Pixels (N,P,dim) with the sound (N,128) added as ``weights`` (N,P,heads) say."""
        values = _heads(self.audio_value(sound))
        # A head gives every pixel a multiple of one vector, so the output projection needs that vector only.
        out = self.visual_out.weight.view(-1, HEADS, EMBED_DIM // HEADS)
        given = torch.einsum("nhd,chd->nhc", values, out) * self.visual_gamma
        return pixels + (weights @ given + self.visual_gamma * self.visual_out.bias)

    def _to_sound(self, sound: Tensor, weights: Tensor, visual: Tensor) -> Tensor:
        """Sound (N,128) with the pixels (N,P,dim) added as ``weights`` (N,P,heads) say."""
        # The projection of a weighted sum of pixels is the weighted sum of projections; dropout leaves
        # weights that do not sum to 1, so the bias is weighted, too.
        means = weights.transpose(1, 2) @ visual  # (N,heads,dim)
        read = torch.einsum("nhc,hdc->nhd", means, self.visual_value.weight.view(HEADS, -1, means.shape[-1]))
        read = read + self.visual_value.bias.view(HEADS, -1) * weights.sum(dim=1)[..., None]
        update: Tensor = self.audio_out(read.flatten(1))
        return sound + self.audio_gamma * update

    def _drop(self, weights: Tensor) -> Tensor:
        return F.dropout(weights, self.dropout, self.training)


class AudioQueries(nn.Module):
    """The sound of a frame as an addition to the learned queries (paper section 3.2, last paragraph)."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.pairing = options.audio_pairing
        self.queries = nn.Parameter(torch.randn(options.queries, options.dim))
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
        queries: Tensor = self.queries
        sources = audio_sources(len(audio), len(queries), self.pairing, audio.device)
        return queries + heard[sources]


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


def _heads(values: Tensor) -> Tensor:
    """(N, heads * d) -> (N,heads,d)."""
    return values.unflatten(-1, (HEADS, EMBED_DIM // HEADS))
