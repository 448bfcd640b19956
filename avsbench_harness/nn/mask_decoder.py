"""The transformer decoder with masked attention (Cheng et al., "Mask2Former", CVPR 2022, section 3.2).

Queries attend to a pyramid of maps, each query only inside its currently predicted mask. Every depth,
including the one before the first layer, predicts a class and a mask per query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.nn.attention import Attention
from avsbench_harness.nn.positions import sine_positions


@dataclass(frozen=True)
class MaskPredictions:
    """Classes and masks at every depth: depth 0 is before the first layer, the last one after the last layer.

    Attributes:
        class_logits: per depth (N,Q,classes + 1), the last class being "no object".
        embeddings: per depth (N,Q,dim); a mask is the product of an embedding with the features.
        features: (N,dim,h,w).
    """

    class_logits: list[Tensor]
    embeddings: list[Tensor]
    features: Tensor

    def masks(self, depth: int = -1) -> Tensor:
        """Mask logits of one depth, (N,Q,h,w)."""
        return mask_logits(self.embeddings[depth], self.features)


def mask_logits(embeddings: Tensor, features: Tensor) -> Tensor:
    """Products of embeddings (N,Q,dim) with a feature map (N,dim,h,w): (N,Q,h,w)."""
    return (embeddings @ features.flatten(2)).view(*embeddings.shape[:2], *features.shape[2:])


class MaskDecoderLayer(nn.Module):
    """Cross-attention to pixels, self-attention among queries, feed-forward block; all post-norm."""

    def __init__(self, dim: int, ffn_dim: int, heads: int) -> None:
        super().__init__()
        self.cross_attn = Attention(dim, heads)
        self.cross_norm = nn.LayerNorm(dim)
        self.self_attn = Attention(dim, heads)
        self.self_norm = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.ffn_norm = nn.LayerNorm(dim)
        for attention in (self.cross_attn, self.self_attn):
            nn.init.xavier_uniform_(attention.out_proj.weight)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(
        self,
        queries: Tensor,
        query_positions: Tensor,
        pixels: Tensor,
        pixel_positions: Tensor,
        allowed: Tensor | None,
    ) -> Tensor:
        """One layer.

        Args:
            queries: (N,Q,dim).
            query_positions: (Q,dim) or (N,Q,dim).
            pixels: (N,S,dim).
            pixel_positions: (S,dim), added to keys, not to values.
            allowed: (N,1,Q,S) bool, True where a query may attend; ``None`` for everywhere.

        Returns:
            (N,Q,dim)
        """
        attended = self.cross_attn(queries + query_positions, pixels + pixel_positions, pixels, mask=allowed)
        queries = self.cross_norm(queries + attended)
        placed = queries + query_positions
        queries = self.self_norm(queries + self.self_attn(placed, placed, queries))
        expanded = self.linear2(F.relu(self.linear1(queries), inplace=True))
        updated: Tensor = self.ffn_norm(queries + expanded)
        return updated


class MaskDecoder(nn.Module):
    """Queries and maps to classes and masks.

    Args:
        dim: channels of queries, maps and features.
        classes: number of classes without "no object", which is added as the last one.
        layers: number of layers; layer ``i`` attends to map ``i modulo levels``.
        ffn_dim: hidden width of the feed-forward blocks.
        heads: heads of all attention layers.
        levels: number of maps of the pyramid.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        layers: int = 9,
        ffn_dim: int = 2048,
        heads: int = 8,
        levels: int = 3,
    ) -> None:
        super().__init__()
        self.level_embedding = nn.Parameter(torch.empty(levels, dim))
        self.layers = nn.ModuleList(MaskDecoderLayer(dim, ffn_dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.classify = nn.Linear(dim, classes + 1)
        self.mask_mlp = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)
        )
        nn.init.normal_(self.level_embedding)

    def forward(
        self, queries: Tensor, query_positions: Tensor, maps: Sequence[Tensor], features: Tensor
    ) -> MaskPredictions:
        """Predict at every depth.

        Args:
            queries: (N,Q,dim).
            query_positions: (Q,dim) or (N,Q,dim), added to the queries in all attention.
            maps: (N,dim,h_i,w_i), in the order in which the layers attend to them.
            features: (N,dim,h,w), multiplied with the mask embeddings.
        """
        pixels = [
            level.flatten(2).transpose(1, 2) + embedding
            for level, embedding in zip(maps, self.level_embedding, strict=True)
        ]
        positions = []
        for level in maps:
            dim, height, width = level.shape[1:]
            code = sine_positions(height, width, dim, normalize=True, device=level.device)
            positions.append(code.flatten(0, 1))
        # Resizing a mask equals resizing the features (both are linear), and the features are resized once
        # for all depths. Masks at full size are computed by the caller if needed.
        resized = [
            F.interpolate(features.detach(), size=level.shape[-2:], mode="bilinear", align_corners=False)
            for level in maps
        ]
        class_logits, embeddings = [], []
        for depth in range(len(self.layers) + 1):
            normed = self.norm(queries)
            class_logits.append(self.classify(normed))
            embeddings.append(self.mask_mlp(normed))
            if depth < len(self.layers):
                turn = depth % len(maps)
                allowed = attention_mask(embeddings[-1], resized[turn])
                queries = self.layers[depth](queries, query_positions, pixels[turn], positions[turn], allowed)
        return MaskPredictions(class_logits, embeddings, features)


@torch.no_grad()
def attention_mask(embeddings: Tensor, features: Tensor) -> Tensor:
    """Pixels that each query may attend to, (N,1,Q,h*w) bool: inside of its mask, or all if that is empty.

    Args:
        embeddings: (N,Q,dim).
        features: (N,dim,h,w) at the size of the map that is attended to.
    """
    allowed = embeddings @ features.flatten(2) >= 0
    return (allowed | ~allowed.any(dim=-1, keepdim=True))[:, None]
