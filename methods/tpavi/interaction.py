"""Temporal pixel-wise audio-visual interaction (paper section 3.2, "TPAVI")."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Channels of a VGGish embedding.
AUDIO_DIM = 128


class Addition(nn.Module):
    """Adds the projected audio of a frame to its pixels: "A + V" of the paper's ablation."""

    def __init__(self, dim: int, audio_bias: bool) -> None:
        super().__init__()
        self.align = nn.Linear(AUDIO_DIM, dim, bias=audio_bias)

    def forward(self, pixels: Tensor, audio: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Interaction.forward`; ``valid`` is unused, as frames are independent."""
        sound = self.align(audio)
        return pixels + sound[:, :, None, None], sound


class Interaction(nn.Module):
    """Pixels attend to all frames of their window, with the audio as keys.

    A non-local block with dot products and no softmax: with theta, phi, g linear and ``a`` the projected
    audio of a frame, repeated at all its pixels, the output at pixel i is

        x_i + BN(W_z (sum_j (theta(x_i) . phi(a_j)) g(x_j)) / number of pixels),

    layer-normalised over its channels. Queries and values are visual; only the keys are audio.

    As ``a`` is the same at all pixels of a frame, the sum over pixels j is a sum over frames, each with the
    frame's mean pixel as value. theta and W_z are applied to the few keys and values instead of to every
    pixel, which leaves two products per pixel with T vectors and no pixels-by-pixels matrix.
    """

    def __init__(
        self, dim: int, window: int | None, audio_bias: bool, *, padding_in_norm: bool = True
    ) -> None:
        """Initialise the block as a plain layer normalisation.

        Args:
            dim: channels of the pixels; queries, keys and values have half as many.
            window: consecutive frames that attend to each other, from the first frame; ``None``: all.
            audio_bias: whether the audio projection has a bias.
            padding_in_norm: whether padded frames count in the batch norm in training.
        """
        super().__init__()
        self.window = window
        self.padding_in_norm = padding_in_norm
        self.align = nn.Linear(AUDIO_DIM, dim, bias=audio_bias)
        self.theta = nn.Linear(dim, dim // 2)
        self.phi = nn.Linear(dim, dim // 2)
        self.g = nn.Linear(dim, dim // 2)
        self.out = nn.Linear(dim // 2, dim)
        self.out_norm = nn.BatchNorm2d(dim)
        self.norm = nn.LayerNorm(dim)
        nn.init.zeros_(self.out_norm.weight)

    def forward(self, pixels: Tensor, audio: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pixels after the interaction, and the projected audio.

        Args:
            pixels: (B,T,h,w,C), zeros in padded frames.
            audio: (B,T,128) embeddings, zeros in padded frames.
            valid: (B,T) bool; padded frames are neither attended to nor counted.

        Returns:
            (B,T,h,w,C) and (B,T,C), undefined in padded frames.
        """
        clips, frames, height, width, dim = pixels.shape
        sound = self.align(audio)  # (B,T,C)
        projected = self.phi(sound)  # (B,T,C/2)
        keys = projected @ self.theta.weight  # (B,T,C)
        offsets = projected @ self.theta.bias  # (B,T)
        values = F.linear(self.g(pixels.mean(dim=(2, 3))), self.out.weight)  # (B,T,C)

        tokens = pixels.reshape(clips, -1, dim)  # (B,T*h*w,C)
        scores = torch.baddbmm(offsets[:, None], tokens, keys.mT)  # (B,T*h*w,T)
        scores = scores.view(clips, frames, -1, frames) * self._shares(valid)[:, :, None].to(scores.dtype)
        read = torch.baddbmm(self.out.bias, scores.flatten(1, 2), values)  # (B,T*h*w,C)
        maps = read.view(-1, height, width, dim).permute(0, 3, 1, 2)
        read = self._normalised(maps, valid.flatten()).permute(0, 2, 3, 1).view(pixels.shape)
        return self.norm(pixels + read), sound

    def _normalised(self, maps: Tensor, valid: Tensor) -> Tensor:
        """Batch-normalise (N,C,h,w), with ``valid`` (N,)."""
        if not self.training or self.padding_in_norm or valid.all():
            normalised: Tensor = self.out_norm(maps)
            return normalised
        kept = torch.zeros_like(maps)
        kept[valid] = self.out_norm(maps[valid])
        return kept

    def _shares(self, valid: Tensor) -> Tensor:
        """Return (B,T,T), the weight of frame s (last axis) in the output of frame t; 0 outside its window.

        In a window without valid frames all count, as in the published code: the result is dropped, but in
        training it counts in the batch statistics.
        """
        frame = torch.arange(valid.shape[1], device=valid.device)
        window = frame // (self.window or valid.shape[1])
        near = window[:, None] == window
        read = near & valid[:, None]
        read = torch.where(read.any(dim=-1, keepdim=True), read, near)
        return read / read.sum(dim=-1, keepdim=True)
