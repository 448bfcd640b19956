"""The multi-scale deformable pixel decoder (Cheng et al., "Mask2Former", CVPR 2022, sections 3.2.2 and 4.1).

Deformable attention refines the three coarse maps of a backbone together; the finest of them is then combined
with the backbone's stride-4 map into the mask features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.nn.deformable import MultiScaleDeformableAttention, Shape, cell_centres
from avsbench_harness.nn.positions import sine_positions
from avsbench_harness.nn.precision import no_autocast

#: Groups of every group normalisation; ``dim`` is a multiple of it.
GROUPS = 32


class DeformableLayer(nn.Module):
    """Deformable self-attention and a feed-forward block with ReLU, both post-norm."""

    def __init__(self, dim: int, ffn_dim: int, *, levels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.self_attn = MultiScaleDeformableAttention(dim, levels=levels)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, tokens: Tensor, positions: Tensor, centres: Tensor, shapes: Sequence[Shape]) -> Tensor:
        """Refine the tokens of all levels (N,S,dim), with ``positions`` (S,dim) and ``centres`` (S,2)."""
        attended = self.self_attn(tokens + positions, centres, tokens, shapes)
        tokens = self.norm1(tokens + self.dropout(attended))
        # In place: the hidden layer is four times as wide as a token and used nowhere else.
        hidden = self.dropout(F.relu(self.linear1(tokens), inplace=True))
        refined: Tensor = self.norm2(tokens + self.dropout(self.linear2(hidden)))
        return refined


class PixelDecoder(nn.Module):
    """Four feature maps to three refined maps and a stride-4 map of mask features.

    Args:
        channels: channels of the backbone's maps at strides 4, 8, 16, 32.
        dim: channels of all outputs, a multiple of 32.
        layers: number of deformable layers.
        ffn_dim: hidden width of their feed-forward blocks.
        dropout: dropout rate in the deformable layers.
    """

    def __init__(
        self,
        channels: Sequence[int],
        dim: int = 256,
        *,
        layers: int = 6,
        ffn_dim: int = 1024,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        fine, *coarser = channels
        # Coarsest first: the order of levels in all that follows, and in published weights.
        self.input_projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(size, dim, 1), nn.GroupNorm(GROUPS, dim)) for size in reversed(coarser)
        )
        self.level_embedding = nn.Parameter(torch.empty(len(coarser), dim))
        self.layers = nn.ModuleList(
            DeformableLayer(dim, ffn_dim, levels=len(coarser), dropout=dropout) for _ in range(layers)
        )
        self.lateral = nn.Sequential(nn.Conv2d(fine, dim, 1, bias=False), nn.GroupNorm(GROUPS, dim))
        self.output = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, dim), nn.ReLU()
        )
        self.mask_features = nn.Conv2d(dim, dim, 1)
        self._initialise()

    def _initialise(self) -> None:
        """Initialise as Mask2Former: Xavier for the inputs, Caffe2's Xavier for the other convolutions."""
        nn.init.normal_(self.level_embedding)
        for convolution in self.modules():
            if isinstance(convolution, nn.Conv2d):
                nn.init.kaiming_uniform_(convolution.weight, a=1)
                if convolution.bias is not None:
                    nn.init.zeros_(convolution.bias)
        for projection in self.input_projections:
            nn.init.xavier_uniform_(projection[0].weight)  # type: ignore[index]

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Decode the maps of a backbone, in float32 at least, also under autocast (as Mask2Former does).

        Args:
            features: (N, channels[i], h_i, w_i), finest first.

        Returns:
            Mask features (N,dim,h_0,w_0), and the refined maps (N,dim,h_i,w_i), coarsest first.
        """
        with no_autocast(features[0]):
            wide = [level.to(torch.promote_types(level.dtype, torch.float32)) for level in features]
            return self._decode(wide)

    def _decode(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        fine, *coarser = features
        levels = [
            project(level) for project, level in zip(self.input_projections, reversed(coarser), strict=True)
        ]
        shapes = [(level.shape[2], level.shape[3]) for level in levels]
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
        dim, device, dtype = tokens.shape[-1], tokens.device, tokens.dtype
        positions = torch.cat(
            [
                sine_positions(*shape, dim, normalize=True, device=device, dtype=dtype).flatten(0, 1)
                + embedding
                for shape, embedding in zip(shapes, self.level_embedding, strict=True)
            ]
        )
        centres = cell_centres(shapes, device=device, dtype=dtype)
        for layer in self.layers:
            tokens = layer(tokens, positions, centres, shapes)
        parts = torch.split(tokens, [height * width for height, width in shapes], dim=1)
        maps = [
            part.transpose(1, 2).reshape(-1, dim, *shape) for part, shape in zip(parts, shapes, strict=True)
        ]
        upsampled = F.interpolate(maps[-1], size=fine.shape[-2:], mode="bilinear", align_corners=False)
        joined = self.output(self.lateral(fine) + upsampled)
        return self.mask_features(joined), maps
