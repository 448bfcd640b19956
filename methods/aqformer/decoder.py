"""The audio-queried transformer decoder (section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.errors import UsageError
from avsbench_harness.nn.attention import Attention
from avsbench_harness.nn.positions import sine_positions

from .interaction import key_mask
from .options import Options
from .pixel_decoder import AUDIO_DIM


class DecoderLayer(nn.Module):
    """Equations 3 to 5: each sublayer's output is normalised, then added to its input."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        dim = options.dim
        self.own_frame = options.query_frames == "own"
        self.cross_attn = Attention(dim, options.heads)
        self.cross_norm = nn.LayerNorm(dim)
        self.self_attn = Attention(dim, options.heads)
        self.self_norm = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, options.ffn_dim)
        self.linear2 = nn.Linear(options.ffn_dim, dim)
        self.ffn_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, queries: Tensor, maps: Tensor, valid: Tensor) -> Tensor:
        """One layer.

        Args:
            queries: ``A`` of layer l - 1, (B,T,dim).
            maps: the scale that this layer attends to, (B,T,dim,h,w).
            valid: (B,T) bool; padded frames are not attended to.

        Returns:
            ``A`` of layer l, (B,T,dim).
        """
        queries = queries + self._norm(
            self.cross_norm, self.attend_pixels(queries, maps, valid)
        )  # equation 3
        mask = None if valid.all() else key_mask(valid)
        queries = queries + self._norm(self.self_norm, self.self_attn(queries, mask=mask))  # equation 4
        expanded = self.linear2(F.relu(self.linear1(queries)))
        return queries + self._norm(self.ffn_norm, expanded)  # equation 5

    def attend_pixels(self, queries: Tensor, maps: Tensor, valid: Tensor) -> Tensor:
        """Apply MHCA from the queries (B,T,dim) to the pixels of all frames, or of their own frame."""
        clips, frames, dim, height, width = maps.shape
        pixels = maps.flatten(3).mT  # (B,T,P,dim)
        positions = sine_positions(height, width, dim, normalize=True, device=maps.device, dtype=maps.dtype)
        keys = pixels + positions.flatten(0, 1)
        if self.own_frame:
            attended: Tensor = self.cross_attn(
                queries.reshape(clips * frames, 1, dim), keys.flatten(0, 1), pixels.flatten(0, 1)
            )
            return attended.view(clips, frames, dim)
        mask = None if valid.all() else key_mask(valid.repeat_interleave(height * width, dim=1))
        over_all: Tensor = self.cross_attn(queries, keys.flatten(1, 2), pixels.flatten(1, 2), mask=mask)
        return over_all

    def _norm(self, norm: nn.Module, update: Tensor) -> Tensor:
        normed: Tensor = self.dropout(norm(update))
        return normed


class AudioQueriedDecoder(nn.Module):
    """T object queries, one per frame, that attend to the maps.

    Args:
        options: options of the network.
        scales: number of maps, to which the layers attend in turn.
        vanilla_queries: number of learned queries if queries are not initialised with the audio.
    """

    def __init__(self, options: Options, *, scales: int, vanilla_queries: int) -> None:
        super().__init__()
        vanilla = options.queries == "vanilla"
        self.queries = nn.Parameter(torch.randn(vanilla_queries, options.dim)) if vanilla else None
        self.audio_projection = None if vanilla else nn.Linear(AUDIO_DIM, options.dim)
        self.layers = nn.ModuleList(DecoderLayer(options) for _ in range(options.stages * scales))
        self.output_norm = nn.LayerNorm(options.dim) if options.output_norm else None

    def forward(self, audio: Tensor, maps: Sequence[Tensor], valid: Tensor) -> Tensor:
        """Return the object embeddings after every layer.

        Args:
            audio: (B,T,128), finite.
            maps: (B,T,dim,h_i,w_i), coarsest first.
            valid: (B,T) bool.

        Returns:
            ``A`` of layers 1 to L, (B,T,L,dim); normalised with the option ``output_norm``.
        """
        queries = self.initial_queries(audio, valid)
        embeddings = []
        for index, layer in enumerate(self.layers):
            queries = layer(queries, maps[index % len(maps)], valid)
            embeddings.append(queries)
        stacked = torch.stack(embeddings, dim=2)
        return stacked if self.output_norm is None else self.output_norm(stacked)

    def initial_queries(self, audio: Tensor, valid: Tensor) -> Tensor:
        """Return ``A`` of layer 0, (B,T,dim): the projected audio, or learned vectors in order.

        Raises:
            UsageError: a clip has more frames than there are vanilla queries.
        """
        if self.audio_projection is not None:
            projected: Tensor = self.audio_projection(audio)
            return projected
        assert self.queries is not None
        if int(valid.sum(dim=1).max()) > len(self.queries):
            raise UsageError(
                f"AQFormer with vanilla queries has {len(self.queries)}, one per frame, and a clip has "
                f"{int(valid.sum(dim=1).max())} frames; use queries: audio for longer clips."
            )
        index = (valid.cumsum(dim=1) - 1).clamp(min=0)  # of the frame among the clip's valid frames
        return self.queries[index]
