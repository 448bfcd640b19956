"""TPAVI's interaction, compared with its definition."""

from __future__ import annotations

import pytest
import torch
from avsbench_methods.tpavi.interaction import Interaction
from torch import Tensor, nn


def pixel_by_pixel(block: Interaction, pixels: Tensor, audio: Tensor) -> Tensor:
    """Compute the interaction of one window by its definition, with a matrix of all pixels by all pixels."""
    clips, frames, height, width, dim = pixels.shape
    sound = block.align(audio)[:, :, None, None].expand(-1, -1, height, width, -1)
    theta, phi, values = (
        layer(part).reshape(clips, -1, dim // 2)
        for layer, part in ((block.theta, pixels), (block.phi, sound), (block.g, pixels))
    )
    matrix = theta @ phi.mT / (frames * height * width)
    read = block.out(matrix @ values).view(-1, height, width, dim).permute(0, 3, 1, 2)
    read = block.out_norm(read).permute(0, 2, 3, 1).view(pixels.shape)
    return block.norm(pixels + read)


@pytest.mark.parametrize("training", [False, True])
def test_the_interaction_is_a_non_local_block(training: bool) -> None:
    torch.manual_seed(0)
    block = Interaction(8, window=None, audio_bias=True).double().train(training)
    nn.init.normal_(block.out_norm.weight)
    pixels = torch.randn(2, 3, 4, 5, 8, dtype=torch.float64, requires_grad=True)
    audio = torch.randn(2, 3, 128, dtype=torch.float64, requires_grad=True)
    found, sound = block(pixels, audio, torch.ones(2, 3, dtype=torch.bool))
    expected = pixel_by_pixel(block, pixels, audio)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(sound, block.align(audio))
    leaves = (pixels, audio, *(p for name, p in block.named_parameters() if name != "out.bias"))
    for mine, theirs in zip(
        torch.autograd.grad(found.square().sum(), leaves),
        torch.autograd.grad(expected.square().sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_attention_is_limited_to_valid_frames_of_the_window() -> None:
    torch.manual_seed(0)
    block = Interaction(8, window=3, audio_bias=True).double().eval()
    nn.init.normal_(block.out_norm.weight)
    valid = torch.tensor([[True, True, True, True, False, True, True]])
    pixels = torch.randn(1, 7, 2, 2, 8, dtype=torch.float64) * valid[..., None, None, None]
    audio = torch.randn(1, 7, 128, dtype=torch.float64)
    found, _ = block(pixels, audio, valid)
    for frames in ([0, 1, 2], [3, 5], [6]):
        torch.testing.assert_close(
            found[:, frames], pixel_by_pixel(block, pixels[:, frames], audio[:, frames])
        )


def test_a_window_without_valid_frames_counts_all_of_them() -> None:
    # As in the published code, where they count in batch statistics in training.
    torch.manual_seed(0)
    block = Interaction(8, window=2, audio_bias=False).double().eval()
    nn.init.normal_(block.out_norm.weight)
    pixels, audio = torch.zeros(1, 2, 3, 3, 8).double(), torch.zeros(1, 2, 128).double()
    found, _ = block(pixels, audio, torch.zeros(1, 2, dtype=torch.bool))
    torch.testing.assert_close(found, pixel_by_pixel(block, pixels, audio))
