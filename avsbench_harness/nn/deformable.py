"""Multi-scale deformable attention in plain PyTorch (Zhu et al., "Deformable DETR", ICLR 2021).

Every query samples a few points on every level of a feature pyramid. A sample is a bilinear interpolation of
four pixels, so a query's result is a weighted sum of ``levels x points x 4`` rows of one table of values: an
embedding bag. PyTorch has that as one operation on the CPU and on CUDA; on the CPU its forward pass is an
order of magnitude faster than sampling each level as an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from avsbench_harness.jit import compiled

#: Height and width of one level.
Shape = tuple[int, int]


def cell_centres(
    shapes: Sequence[Shape], *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Centres (x, y) of all pixels of all levels in [0, 1], (S,2): the reference points of the tokens."""
    centres = []
    for height, width in shapes:
        y = (torch.arange(height, device=device, dtype=dtype) + 0.5) / height
        x = (torch.arange(width, device=device, dtype=dtype) + 0.5) / width
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        centres.append(torch.stack((grid_x, grid_y), dim=-1).flatten(0, 1))
    return torch.cat(centres)


class WeightedBags(torch.autograd.Function):
    """Weighted sums of rows of a table, with a fast gradient for the table.

    That gradient is an embedding bag as well: the gradient of a row is the weighted sum of the gradients of
    the bags that contain it. PyTorch's own adds row by row in one thread.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """Table (R,d), indices of its rows (bags,k) int32 and their weights (bags,k) -> (bags,d)."""
        ctx.save_for_backward(table, rows, weights)
        return _weighted_sums(table, rows, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        """Gradients of the table and of the weights."""
        table, rows, weights = ctx.saved_tensors
        of_table = of_weights = None
        if ctx.needs_input_grad[0]:
            bags, starts, factors = _transposed(rows, weights, len(table))
            of_table = F.embedding_bag(
                bags, gradient.contiguous(), starts, mode="sum", per_sample_weights=factors
            )
        if ctx.needs_input_grad[2]:
            with torch.enable_grad():
                variable = weights.detach().requires_grad_()
                summed = _weighted_sums(table.detach(), rows, variable)
            (of_weights,) = torch.autograd.grad(summed, variable, gradient)
        return of_table, None, of_weights


def _transposed(rows: Tensor, weights: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bags of the rows: for every row of the table, the bags that contain it, with its weights there.

    Args:
        rows: (bags,k) int32.
        weights: (bags,k).
        count: number of rows of the table.

    Returns:
        The bags of all rows (bags*k,), the first position of each row (count,), both int32, and the weights.
    """
    if rows.device.type != "cpu" or torch.compiler.is_compiling():
        taken, order = rows.flatten().sort()
        starts = torch.searchsorted(taken, torch.arange(count, device=rows.device, dtype=rows.dtype))
        return (order // rows.shape[1]).to(rows.dtype), starts.to(rows.dtype), weights.flatten()[order]
    bags, starts = rows.new_empty(rows.numel()), rows.new_empty(count)
    factors = weights.new_empty(rows.numel())
    _counting_sort(rows.numpy(), weights.detach().numpy(), bags.numpy(), starts.numpy(), factors.numpy())
    return bags, starts, factors


@compiled
def _counting_sort(rows: Any, weights: Any, bags: Any, starts: Any, factors: Any) -> None:
    """Fill ``bags``, ``starts`` and ``factors`` as :func:`_transposed` returns them."""
    starts[:] = 0
    for bag in range(rows.shape[0]):
        for place in range(rows.shape[1]):
            starts[rows[bag, place]] += 1
    total = 0
    for row in range(len(starts)):
        size = starts[row]
        starts[row] = total
        total += size
    for bag in range(rows.shape[0]):
        for place in range(rows.shape[1]):
            row = rows[bag, place]
            at = starts[row]
            bags[at] = bag
            factors[at] = weights[bag, place]
            starts[row] = at + 1
    for row in range(len(starts) - 1, 0, -1):  # back from the ends to the beginnings
        starts[row] = starts[row - 1]
    if len(starts):
        starts[0] = 0


def _weighted_sums(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    return F.embedding_bag(rows, table, mode="sum", per_sample_weights=weights)


def sample_levels(values: Tensor, shapes: Sequence[Shape], points: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of bilinear samples from the levels of a pyramid.

    Outside of a level all values are zero, as with
    ``grid_sample(mode="bilinear", padding_mode="zeros", align_corners=False)``.

    Args:
        values: (N,S,heads,d), tokens of all levels in order, each level row by row.
        shapes: height and width of each level; their areas sum to S.
        points: (N,Q,heads,levels,points,2), (x, y) in pixels of each level; 0 is the centre of the first.
        weights: (N,Q,heads,levels,points).

    Returns:
        (N,Q,heads,d)
    """
    tokens, heads, channels = values.shape[1:]
    areas = [height * width for height, width in shapes]
    if sum(areas) != tokens or points.shape[3] != len(shapes):
        raise ValueError(f"levels {list(shapes)} do not fit {tokens} tokens and {points.shape[3]} levels")
    # Coordinates and sums in float32 at least: half precision cannot distinguish neighbouring pixels.
    working = torch.promote_types(values.dtype, torch.float32)
    points, weights = points.to(working), weights.to(working)
    last, line, base = _level_constants(points, shapes, tokens)

    lower = points.detach().floor()
    upper = lower + 1
    fraction = points - lower
    # Weights of the lower and the upper neighbour on each axis, zero outside of the level.
    near = (1 - fraction) * ((lower >= 0) & (lower <= last))
    far = fraction * ((upper >= 0) & (upper <= last))
    x0, y0 = lower.clamp(min=0).minimum(last).to(torch.int32).unbind(-1)
    x1, y1 = upper.clamp(min=0).minimum(last).to(torch.int32).unbind(-1)
    (near_x, near_y), (far_x, far_y) = near.unbind(-1), far.unbind(-1)

    row0, row1 = y0 * line + base, y1 * line + base
    near_y, far_y = near_y * weights, far_y * weights
    # The four corners of all points of one query and head are one bag, in any order.
    corners = torch.stack((row0 + x0 * heads, row0 + x1 * heads, row1 + x0 * heads, row1 + x1 * heads), dim=3)
    factors = torch.stack((near_y * near_x, near_y * far_x, far_y * near_x, far_y * far_x), dim=3)
    summed: Tensor = WeightedBags.apply(
        values.reshape(-1, channels).to(working),
        corners.flatten(0, 2).flatten(1),
        factors.flatten(0, 2).flatten(1),
    )
    return summed.view(*points.shape[:3], channels).to(values.dtype)


def _level_constants(points: Tensor, shapes: Sequence[Shape], tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Constants that map pixels (x, y) of a level to rows of the table of all inputs, tokens and heads.

    Expanded over heads and points, so that arithmetic runs over contiguous memory; in int32, which halves the
    cost of sorting in the backward pass.

    Returns:
        last: (heads,levels,points,2) float, the last pixel (x, y) of the level.
        line: (heads,levels,points) int32, rows of the table between two lines of the level.
        base: (N,1,heads,levels,points) int32, row of the level's first pixel.
    """
    count, _, heads, levels, per_level, _ = points.shape
    last = points.new_tensor([(width - 1, height - 1) for height, width in shapes])
    last = last[:, None].expand(heads, levels, per_level, 2).contiguous()
    device = points.device
    starts = list(accumulate((height * width for height, width in shapes[:-1]), initial=0))
    line = torch.tensor([width * heads for _, width in shapes], device=device, dtype=torch.int32)
    start = torch.tensor(starts, device=device, dtype=torch.int32) * heads
    frame = torch.arange(count, device=device, dtype=torch.int32) * (tokens * heads)
    head = torch.arange(heads, device=device, dtype=torch.int32)
    base = frame.view(-1, 1, 1, 1, 1) + start[:, None] + head[:, None, None]
    return (
        last,
        line[:, None].expand(heads, levels, per_level).contiguous(),
        base.expand(-1, 1, -1, -1, per_level).contiguous(),
    )


class MultiScaleDeformableAttention(nn.Module):
    """Attention in which each query predicts a few sampling points per head and level, and their weights.

    Parameter names are those of Deformable DETR, which all published weights use.
    """

    def __init__(self, dim: int, *, levels: int, heads: int = 8, points: int = 4) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{dim} channels cannot be split between {heads} heads")
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise offsets to one direction per head, point k at k pixels, with equal weights."""
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.points + 1)
        offsets = directions[:, None, None] * steps[:, None]  # (heads,1,points,2)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, query: Tensor, reference: Tensor, values: Tensor, shapes: Sequence[Shape]) -> Tensor:
        """Sample the pyramid around reference points.

        Args:
            query: (N,Q,dim).
            reference: reference points (x, y) of the queries in [0, 1], (Q,2), or (N,Q,levels,2) if they
                differ between inputs or levels.
            values: (N,S,dim), tokens of all levels in order, each level row by row.
            shapes: height and width of each level.

        Returns:
            (N,Q,dim)
        """
        count, queries, dim = query.shape
        grid = (count, queries, self.heads, self.levels, self.points)
        table = self.value_proj(values).unflatten(-1, (self.heads, dim // self.heads))
        offsets = self.sampling_offsets(query).view(*grid, 2)
        weights = self.weights(query).view(grid)
        sizes = reference.new_tensor([(width, height) for height, width in shapes])
        if reference.dim() == 2:
            reference = reference[None, :, None]
        origins = (reference * sizes - 0.5)[:, :, None, :, None]  # in pixels, as offsets are
        points = origins.expand(-1, -1, *grid[2:], -1).contiguous() + offsets
        sampled = sample_levels(table, shapes, points, weights)
        attended: Tensor = self.output_proj(sampled.flatten(2))
        return attended

    def weights(self, query: Tensor) -> Tensor:
        """Attention weights of queries (N,Q,dim) for their sampling points, (N,Q,heads,levels*points)."""
        weights: Tensor = self.attention_weights(query).unflatten(-1, (self.heads, -1)).softmax(dim=-1)
        return weights
