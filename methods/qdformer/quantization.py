"""The shared codebook: vector quantisation (section 3.1, equation 2), its loss (equation 9), its health."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avsbench_harness.distributed import all_gather_rows, broadcast_tensor_

from .options import Options

#: Share of the past in the moving average of how often codes are used.
USAGE_MEMORY = 0.99


class Quantizer(nn.Module):
    """``VQ(x)``: the code that is nearest in the 2-norm, with a gradient that passes straight through.

    Attributes:
        codebook: (K,dim), the codes ``e^k``. Of the losses only the first term of equation 9 moves it.
        usage: (K,), moving average of the codes' shares among the clip tokens seen in training.
        idle: (K,) int64, training steps since each code was last used by a clip token.
        started: whether the codes have their initial values.
    """

    usage: Tensor
    idle: Tensor
    started: Tensor

    def __init__(self, options: Options) -> None:
        super().__init__()
        size = options.codebook_size
        # Tokens come out of a layer normalisation: codes are drawn at that scale.
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
            ``VQ(x)`` (...,dim) as codes, whose gradient goes to the codebook, and the same values with the
            gradient of the tokens (straight through), which do not move the codebook.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.float()
            codes = self.codebook[self.nearest(tokens)]
            return codes, tokens + (codes - tokens).detach()

    @torch.no_grad()
    def nearest(self, tokens: Tensor) -> Tensor:
        """Index of the nearest code of each token, (...,dim) -> (...,) int64; the lowest one on ties."""
        wide = tokens.flatten(0, -2).float()
        codes = self.codebook.float()
        # |x - e|^2 without |x|^2, which is the same for all codes.
        distances = codes.square().sum(dim=1) - 2 * wide @ codes.T
        return distances.argmin(dim=1).view(tokens.shape[:-1])

    @torch.no_grad()
    def start(self, tokens: Tensor) -> None:
        """Put every code onto a token (M,N,dim) drawn at random, in the first training step only.

        Random codes are all equally far from tokens, which at first hardly differ between sounds: each
        prototype would keep to one code whatever it hears. Call it before the codebook is used in the step.
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
        """Keep account of a training step's clip tokens (M,N,dim), and revive dead codes if asked to.

        A revived code is put onto one of the tokens, drawn at random. Call it before the codebook is used
        in the step: it changes the codebook in place.
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
        """(K,) bool: codes that no clip token has used for ``dead_after`` training steps."""
        return self.idle >= self.dead_after

    def diagnostics(self) -> dict[str, float]:
        """``codebook_perplexity``, how many codes are used in effect (1 to K), and ``codebook_dead``."""
        share = self.usage.double()
        entropy = -torch.special.xlogy(share, share).sum()
        return {"codebook_perplexity": float(entropy.exp()), "codebook_dead": float(self.dead().sum())}


@dataclass(frozen=True)
class QuantizedTokens:
    """Tokens before and after quantisation, for the loss.

    Attributes:
        tokens: (B,N,dim) ``g_i``, or (F,N,dim) ``l_{i,t}`` of the frames that exist.
        codes: the same shape, ``VQ`` of them; its gradient goes to the codebook.
    """

    tokens: Tensor
    codes: Tensor


def quantization_losses(
    clip: QuantizedTokens, frames: QuantizedTokens | None, commit_weight: float
) -> dict[str, Tensor]:
    """The three terms of equation 9, summed over tokens and frames and averaged over clips.

    ``codebook`` is ``|VQ(g) - sg[g]|^2`` and moves the codebook alone. ``commit_global`` is
    ``lambda_com |sg[VQ(g)] - g|^2`` and moves the clip tokens alone. ``commit_local`` is
    ``lambda_com |sg[VQ(l)] - l|^2`` and moves the frame tokens alone: they do not update the codebook.

    Args:
        clip: of the B clips that have frames.
        frames: of all their frames together; ``None`` without calibration.
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
