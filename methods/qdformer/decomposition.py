"""Semantic decomposition (equations 4 and 6) and audio-visual semantic recombination (equation 5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import DecoderLayer, two_layers
from .options import Options


class SemanticDecoder(nn.Module):
    """An audio semantic decoder (Figure 4a): prototypes attend to the audio of a clip or a frame.

    Equation 4 with a clip's fused audio as memory, ``g_i = TrD_global(p_i | F'_a)``; equation 6 with a
    frame's audio, ``l_{i,t} = TrD_local(p_i | f_{a,t})``. The prototypes are the initial tokens, or, as in
    DETR, positions of the queries, whose content starts at zero.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.positions_only = options.prototypes == "positions"
        self.layers = nn.ModuleList(DecoderLayer(options) for _ in range(options.semantic_layers))

    def forward(
        self,
        prototypes: Tensor,
        audio: Tensor,
        positions: Tensor | float = 0.0,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """Decompose the audio.

        Args:
            prototypes: (M,N,dim), ``p_i``, the same for all.
            audio: (M,S,dim), of M clips with S frames, or of M frames with S = 1.
            positions: (S,dim), position codes of the audio.
            allowed: (M,S) bool, the valid frames; ``None``: all.

        Returns:
            (M,N,dim)
        """
        own: Tensor | float = 0.0
        tokens = prototypes
        if self.positions_only:
            own, tokens = prototypes, torch.zeros_like(prototypes)
        for layer in self.layers:
            tokens = layer(tokens, audio, positions=own, memory_positions=positions, allowed=allowed)
        return tokens


class Recombination(nn.Module):
    """Equation 5: ``F'_v = BN(phi(w_1 F_v + ... + w_N F_v) + F_v)``, where ``+`` in brackets concatenates.

    A two-layer MLP maps every token to a filter ``w_i``, one factor per channel; ``phi`` reduces the
    concatenated maps from ``N * dim`` channels to ``dim``.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.filters = two_layers(options.dim, options.dim, options.dim)
        self.reduce = nn.Conv2d(options.tokens * options.dim, options.dim, 1)
        self.norm = nn.BatchNorm2d(options.dim)

    def forward(self, tokens: Tensor, video: Tensor) -> Tensor:
        """Modulate the visual features by the tokens.

        Args:
            tokens: (F,N,dim), tokens of the clip of each frame.
            video: (F,dim,h,w), valid frames.

        Returns:
            (F,dim,h,w)
        """
        filters = self.filters(tokens)  # (F,N,dim)
        modulated = filters[..., None, None] * video[:, None]  # (F,N,dim,h,w)
        recombined: Tensor = self.norm(self.reduce(modulated.flatten(1, 2)) + video)
        return recombined


def new_prototypes(options: Options) -> nn.Parameter:
    """Return learned prototypes (N,dim), initialised at the scale of layer-normalised tokens."""
    return nn.Parameter(torch.randn(options.tokens, options.dim))
