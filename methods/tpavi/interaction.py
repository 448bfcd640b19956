"""Temporal pixel-wise audio-visual interaction (paper section 3.2, "TPAVI")."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Channels of a VGGish embedding.
AUDIO_DIM = 128


class Addition(nn.Module):
    """Pixels plus the projected sound of their own frame: "A + V" of the paper's ablation."""

    def __init__(self, dim: int, audio_bias: bool) -> None:
        super().__init__()
        self.align = nn.Linear(AUDIO_DIM, dim, bias=audio_bias)

    def forward(self, pixels: Tensor, audio: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`Interaction.forward`; ``valid`` is not needed, as frames do not meet."""
        sound = self.align(audio)
        return pixels + sound[:, :, None, None], sound


class Interaction(nn.Module):
    """Pixels read from all frames of their window, as far as the frames' sounds answer to them.

    A non-local block with dot products and no softmax: with theta, phi, g linear and ``a`` the projected
    sound of a frame, laid over all its pixels, pixel i gets

        x_i + BN(W_z (sum_j (theta(x_i) . phi(a_j)) g(x_j)) / number of pixels),

    normalised over its channels. Queries and values are visual; only the keys are sound.

    As ``a`` is the same at all pixels of a frame, the sum over pixels j is one over frames, each with the
    frame's mean pixel as value. What theta and W_z do to every pixel they can do to the few keys and values
    instead. That leaves two products per pixel with T vectors, and no matrix of pixels by pixels.
    """

    def __init__(
        self, dim: int, window: int | None, audio_bias: bool, *, padding_in_norm: bool = True
    ) -> None:
        """Weights with which the block starts as a mere layer normalisation.

        Args:
            dim: channels of the pixels; inside there are half as many.
            window: consecutive frames that see each other, counted from the first; ``None``: all.
            audio_bias: whether the sound's projection has one.
            padding_in_norm: whether, in training, the batch norm sees frames that do not exist.
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
        """The pixels after the interaction, and the projected sound.

        Args:
            pixels: (B,T,h,w,C), zeros in frames that do not exist.
            audio: (B,T,128) embeddings, zeros in frames that do not exist.
            valid: (B,T) bool, frames that exist; the others are neither read nor counted.

        Returns:
            (B,T,h,w,C) and (B,T,C); what they hold in missing frames means nothing.
        """
        clips, frames, height, width, dim = pixels.shape
        sound = self.align(audio)  # (B,T,C)
        heard = self.phi(sound)  # (B,T,C/2)
        keys = heard @ self.theta.weight  # (B,T,C)
        offsets = heard @ self.theta.bias  # (B,T)
        values = F.linear(self.g(pixels.mean(dim=(2, 3))), self.out.weight)  # (B,T,C)

        tokens = pixels.reshape(clips, -1, dim)  # (B,T*h*w,C)
        scores = torch.baddbmm(offsets[:, None], tokens, keys.mT)  # (B,T*h*w,T)
        scores = scores.view(clips, frames, -1, frames) * self._shares(valid)[:, :, None].to(scores.dtype)
        read = torch.baddbmm(self.out.bias, scores.flatten(1, 2), values)  # (B,T*h*w,C)
        maps = read.view(-1, height, width, dim).permute(0, 3, 1, 2)
        read = self._normalised(maps, valid.flatten()).permute(0, 2, 3, 1).view(pixels.shape)
        return self.norm(pixels + read), sound

    def _normalised(self, maps: Tensor, valid: Tensor) -> Tensor:
        """Batch normalisation of (N,C,h,w), where (N,) says which frames exist."""
        if not self.training or self.padding_in_norm or valid.all():
            normalised: Tensor = self.out_norm(maps)
            return normalised
        kept = torch.zeros_like(maps)
        kept[valid] = self.out_norm(maps[valid])
        return kept

    def _shares(self, valid: Tensor) -> Tensor:
        """(B,T,T): the share of frame s (last axis) in what frame t reads; 0 outside its window.

        In a window without any frame all count, as in the published code: what comes of it is dropped, but
        in training the batch normalisation sees it.
        """
        frame = torch.arange(valid.shape[1], device=valid.device)
        window = frame // (self.window or valid.shape[1])
        near = window[:, None] == window
        read = near & valid[:, None]
        read = torch.where(read.any(dim=-1, keepdim=True), read, near)
        return read / read.sum(dim=-1, keepdim=True)
