"""The shared codebook: vector quantisation (section 3.1, equation 2), its loss (equation 9) and usage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avsbench_harness.distributed import all_gather_rows, broadcast_tensor_
from avsbench_harness.nn.precision import no_autocast

from .options import Options

#: Momentum of the moving average of the codes' usage.
USAGE_MEMORY = 0.99


class Quantizer(nn.Module):
    """``VQ(x)``: the nearest code in the 2-norm, with a straight-through gradient.

    Attributes:
        codebook: (K,dim), the codes ``e^k``, updated by the first term of equation 9 only.
        usage: (K,), moving average of the codes' shares among the clip tokens in training.
        idle: (K,) int64, training steps since a clip token last used each code.
        started: whether the codes are initialised.
    """

    usage: Tensor
    idle: Tensor
    started: Tensor

    def __init__(self, options: Options) -> None:
        super().__init__()
        size = options.codebook_size
        # Codes are initialised at the scale of the layer-normalised tokens.
        self.codebook = nn.Parameter(torch.randn(size, options.dim))
        self.register_buffer("usage", torch.zeros(size))
        self.register_buffer("idle", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("started", torch.tensor(options.codebook_init == "normal"))
        self.revive = options.revive_dead_codes
        self.dead_after = options.dead_after

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise tokens, in float32 whatever the precision.

        Args:
            tokens: (...,dim).

        Returns:
            ``VQ(x)`` (...,dim), with a gradient for the codebook, and the same values with a straight-through
            gradient for the tokens and none for the codebook.
        """
        with no_autocast(tokens):
            tokens = tokens.float()
            codes = self.codebook[self.nearest(tokens)]
            return codes, tokens + (codes - tokens).detach()

    @torch.no_grad()
    def nearest(self, tokens: Tensor) -> Tensor:
        """Return the index (...) int64 of each token's nearest code, for (...,dim); the lowest on ties."""
        wide = tokens.flatten(0, -2).float()
        codes = self.codebook.float()
        # |x - e|^2 without |x|^2, which is the same for all codes.
        distances = codes.square().sum(dim=1) - 2 * wide @ codes.T
        return distances.argmin(dim=1).view(tokens.shape[:-1])

    @torch.no_grad()
    def start(self, tokens: Tensor) -> None:
        """Set every code to a random token of (M,N,dim), in the first training step only.

        Random codes are all at similar distances from the initial tokens, which hardly depend on the audio,
        so each prototype would always use the same code. Call it before the codebook is used in the step.
        """
        if self.started:
            return
        tokens = all_gather_rows(tokens.flatten(0, -2))
        if not tokens.numel():
            return
        pool = tokens.to(self.codebook.dtype)
        order = torch.randperm(len(pool), device=pool.device).repeat(-(-len(self.codebook) // len(pool)))
        self.codebook.copy_(pool[order[: len(self.codebook)]])
        broadcast_tensor_(self.codebook)
        self.started.fill_(True)

    @torch.no_grad()
    def observe(self, tokens: Tensor) -> None:
        """Update the usage with a training step's clip tokens (M,N,dim), and optionally reset dead codes.

        A dead code is set to a random one of the tokens. Call it before the codebook is used in the step: it
        changes the codebook in place.
        """
        tokens = all_gather_rows(tokens.flatten(0, -2))
        if not tokens.numel():
            return
        found = self.nearest(tokens)
        counts = torch.bincount(found, minlength=len(self.codebook)).to(self.usage.dtype)
        share = counts / counts.sum()
        fresh = not bool(self.usage.any())
        self.usage.copy_(share if fresh else torch.lerp(share, self.usage, USAGE_MEMORY))
        self.idle.add_(1).masked_fill_(counts > 0, 0)
        if self.revive and bool((dead := self.dead()).any()):
            drawn = torch.randint(len(tokens), (int(dead.sum()),), device=tokens.device)
            self.codebook[dead] = tokens[drawn].to(self.codebook.dtype)
            broadcast_tensor_(self.codebook)
            self.idle.masked_fill_(dead, 0)

    def dead(self) -> Tensor:
        """Return (K,) bool: codes that no clip token has used for ``dead_after`` training steps."""
        return self.idle >= self.dead_after

    def diagnostics(self) -> dict[str, float]:
        """Return ``codebook_perplexity``, the effective number of codes (1 to K), and ``codebook_dead``."""
        share = self.usage.double()
        entropy = -torch.special.xlogy(share, share).sum()
        return {"codebook_perplexity": float(entropy.exp()), "codebook_dead": float(self.dead().sum())}


@dataclass(frozen=True)
class QuantizedTokens:
    """Tokens before and after quantisation, for the loss.

    Attributes:
        tokens: (B,N,dim) ``g_i``, or (F,N,dim) ``l_{i,t}`` of valid frames.
        codes: same shape, ``VQ`` of the tokens, with a gradient for the codebook.
    """

    tokens: Tensor
    codes: Tensor


def quantization_losses(
    clip: QuantizedTokens, frames: QuantizedTokens | None, commit_weight: float
) -> dict[str, Tensor]:
    """Return the three terms of equation 9, summed over tokens and frames and averaged over clips.

    ``codebook`` is ``|VQ(g) - sg[g]|^2``, with a gradient for the codebook only. ``commit_global`` is
    ``lambda_com |sg[VQ(g)] - g|^2``, with a gradient for the clip tokens only. ``commit_local`` is
    ``lambda_com |sg[VQ(l)] - l|^2``, with a gradient for the frame tokens only.

    Args:
        clip: tokens of the B clips with valid frames.
        frames: tokens of all their frames; ``None`` without calibration.
        commit_weight: ``lambda_com``.
    """
    clips = max(len(clip.tokens), 1)
    tokens = clip.tokens.float()
    losses = {
        "codebook": (clip.codes - tokens.detach()).square().sum() / clips,
        "commit_global": commit_weight * (clip.codes.detach() - tokens).square().sum() / clips,
    }
    if frames is not None:
        distance = (frames.codes.detach() - frames.tokens.float()).square().sum()
        losses["commit_local"] = commit_weight * distance / clips
    return losses
