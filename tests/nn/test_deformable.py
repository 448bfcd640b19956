from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from avsbench_harness.nn import deformable
from avsbench_harness.nn.deformable import MultiScaleDeformableAttention, cell_centres, sample_levels

SHAPES = [(4, 6), (2, 3), (1, 2)]
TOKENS = sum(height * width for height, width in SHAPES)


def by_grid_sample(values: Tensor, points: Tensor, weights: Tensor) -> Tensor:
    """The definition: sample each level as an image, then sum with the weights."""
    count, _, heads, channels = values.shape
    queries, levels, per_level = points.shape[1], *points.shape[3:5]
    sampled, start = [], 0
    for level, (height, width) in enumerate(SHAPES):
        stop = start + height * width
        maps = values[:, start:stop].permute(0, 2, 3, 1).reshape(count * heads, channels, height, width)
        centres = points[:, :, :, level] + 0.5
        grid = 2 * centres / torch.tensor([width, height], dtype=points.dtype) - 1
        grid = grid.transpose(1, 2).reshape(count * heads, queries, per_level, 2)
        sampled.append(F.grid_sample(maps, grid, align_corners=False))
        start = stop
    stacked = torch.stack(sampled, dim=3).flatten(3)
    factors = weights.transpose(1, 2).reshape(count * heads, 1, queries, levels * per_level)
    summed = (stacked * factors).sum(dim=-1)
    return summed.view(count, heads, channels, queries).permute(0, 3, 1, 2)


def draw(seed: int, *, heads: int = 2, channels: int = 3, queries: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    print(f"seed {seed}")
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    grid = (2, queries, heads, len(SHAPES), 4)
    return normal(2, TOKENS, heads, channels), 4 * normal(*grid, 2) + 1, normal(*grid)


@pytest.mark.parametrize("seed", range(5))
def test_samples_equal_grid_sample(seed: int) -> None:
    values, points, weights = draw(seed)
    outside = (points < -1).any(dim=-1)
    assert outside.any(), "points outside the levels belong to the test"
    found = sample_levels(values, SHAPES, points, weights)
    torch.testing.assert_close(found, by_grid_sample(values, points, weights))


def test_gradients_equal_grid_sample() -> None:
    inputs = draw(7)
    found, expected = [], []
    for result, sample in (
        (found, lambda *a: sample_levels(a[0], SHAPES, *a[1:])),
        (expected, by_grid_sample),
    ):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        result.extend(torch.autograd.grad(sample(*leaves).square().sum(), leaves))
    torch.testing.assert_close(found, expected)


def test_points_on_pixels_and_outside_of_the_borders() -> None:
    values = torch.arange(TOKENS, dtype=torch.float32).view(1, TOKENS, 1, 1)
    weights = torch.tensor([1.0, 0.0, 0.0]).view(1, 1, 1, 3, 1)

    def read(x: float, y: float) -> float:
        points = torch.tensor([x, y]).expand(1, 1, 1, 3, 1, 2)
        return float(sample_levels(values, SHAPES, points, weights))

    assert read(2, 1) == 8  # row 1, column 2 of 6 columns
    assert read(2.5, 1) == 8.5
    assert read(5, 3) == 23  # the last pixel
    assert read(5.5, 3) == 11.5  # half of it is outside
    assert read(-1, 0) == read(6, 0) == read(0, -1) == read(0, 4) == 0
    assert read(1e30, -1e30) == 0
    assert math.isnan(
        read(float("inf"), 0)
    )  # of a diverged network: the result is NaN, and no memory outside is read


def test_half_precision_values_are_summed_in_float32() -> None:
    values, points, weights = draw(3)
    half = sample_levels(values.bfloat16(), SHAPES, points.float(), weights.float())
    assert half.dtype == torch.bfloat16
    exact = sample_levels(values.bfloat16().double(), SHAPES, points, weights)
    torch.testing.assert_close(half.double(), exact, rtol=2**-8, atol=1e-4)


def test_levels_that_do_not_fit_are_refused() -> None:
    values, points, weights = draw(0)
    with pytest.raises(ValueError, match="do not fit"):
        sample_levels(values[:, 1:], SHAPES, points, weights)
    with pytest.raises(ValueError, match="do not fit"):
        sample_levels(values, [(4, 8)], points, weights)


def test_cell_centres() -> None:
    centres = cell_centres([(1, 2), (2, 1)])
    assert centres.tolist() == [[0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75]]


def test_initial_offsets_are_eight_directions_with_equal_weights() -> None:
    attention = MultiScaleDeformableAttention(16, levels=2, heads=8, points=3)
    offsets = attention.sampling_offsets.bias.view(8, 2, 3, 2)
    torch.testing.assert_close(offsets[0, 0], torch.tensor([[1.0, 0], [2, 0], [3, 0]]))
    torch.testing.assert_close(offsets[1, 1, 1], torch.tensor([2.0, 2]))
    torch.testing.assert_close(offsets[4], -offsets[0])
    assert not attention.sampling_offsets.weight.any()
    assert not attention.attention_weights.weight.any()


@pytest.mark.parametrize(("levels", "heads", "points"), [(1, 4, 1), (3, 8, 4)])
def test_attention_equals_its_definition(levels: int, heads: int, points: int) -> None:
    torch.manual_seed(levels)
    shapes = SHAPES[:levels]
    tokens, dim = sum(height * width for height, width in shapes), 32
    attention = MultiScaleDeformableAttention(dim, levels=levels, heads=heads, points=points).double()
    torch.nn.init.normal_(attention.sampling_offsets.weight, std=0.1)
    torch.nn.init.normal_(attention.attention_weights.weight)
    query, values = torch.randn(2, tokens, dim).double(), torch.randn(2, tokens, dim).double()
    reference = cell_centres(shapes, dtype=torch.float64)

    found = attention(query, reference, values, shapes)

    table = attention.value_proj(values)
    expected = torch.zeros(2, tokens, dim).double()
    offsets = attention.sampling_offsets(query).view(2, tokens, heads, levels, points, 2)
    weights = attention.attention_weights(query).view(2, tokens, heads, -1).softmax(-1)
    weights = weights.view(2, tokens, heads, levels, points)
    for head in range(heads):
        part = slice(head * dim // heads, (head + 1) * dim // heads)
        start = 0
        for level, (height, width) in enumerate(shapes):
            stop = start + height * width
            maps = table[:, start:stop, part].transpose(1, 2).unflatten(2, (height, width))
            location = reference[:, None] + offsets[:, :, head, level] / torch.tensor([width, height])
            sampled = F.grid_sample(maps, 2 * location - 1, align_corners=False)
            expected[..., part] += (sampled * weights[:, None, :, head, level]).sum(-1).transpose(1, 2)
            start = stop
    torch.testing.assert_close(found, attention.output_proj(expected))


def test_reference_points_may_differ_between_inputs_and_levels() -> None:
    torch.manual_seed(0)
    attention = MultiScaleDeformableAttention(16, levels=3)
    query, values = torch.randn(2, 4, 16), torch.randn(2, TOKENS, 16)
    shared = torch.rand(4, 2)
    wide = shared[None, :, None].repeat(2, 1, 3, 1)
    torch.testing.assert_close(
        attention(query, wide, values, SHAPES), attention(query, shared, values, SHAPES)
    )
    moved = wide.clone()
    moved[1, :, 2] += 0.3
    difference = (attention(query, moved, values, SHAPES) - attention(query, wide, values, SHAPES)).abs()
    assert difference[0].max() == 0
    assert difference[1].max() > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_agrees_with_the_cpu() -> None:
    values, points, weights = (tensor.float() for tensor in draw(11))
    leaves = [
        [tensor.to(device).requires_grad_() for tensor in (values, points, weights)]
        for device in ("cpu", "cuda")
    ]
    results = [sample_levels(a, SHAPES, b, c) for a, b, c in leaves]
    torch.testing.assert_close(results[1].cpu(), results[0])
    for result in results:
        result.square().sum().backward()
    for on_cpu, on_cuda in zip(*leaves, strict=True):
        torch.testing.assert_close(on_cuda.grad.cpu(), on_cpu.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bags_of_rows_are_those_of_a_stable_sort(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 50, (40, 6), generator=draw, dtype=torch.int32)
    rows[rows == 7] = 8  # a row in no bag
    weights = torch.rand(40, 6, generator=draw, dtype=dtype)
    bags, starts, factors = deformable._transposed(rows, weights, 52)
    order = rows.flatten().long().sort(stable=True).indices
    assert torch.equal(bags, (order // 6).int())
    assert torch.equal(factors, weights.flatten()[order])
    assert starts.tolist() == [int((rows < row).sum()) for row in range(52)]
