"""The shared codebook: vector quantisation (section 3.1, equation 2), its loss (equation 9) and usage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from avsbench_harness.distributed import all_gather_rows, broadcast_tensor_
from avsbench_harness.nn.precision import no_autocast

from .options import Options

#: Momentum of the moving averages of the codes' usage.
USAGE_MEMORY = 0.99
#: Clip tokens per code that k-means uses at most, the most recent ones.
POOL_SIZE = 8
#: Iterations of k-means.
KMEANS_ITERATIONS = 10


class Quantizer(nn.Module):
    """``VQ(x)``: the nearest code in the 2-norm, with a straight-through gradient.

    All state is in the state dict, so that a resumed training continues with the same codes.

    Attributes:
        codebook: (K,dim), the codes ``e^k``: a parameter that the first term of equation 9 updates, or with
            ``codebook_update`` ``ema`` a buffer.
        weight: (K,), moving average of the number of tokens per step of each code, for ``ema``.
        usage: (K,), moving average of the codes' shares among the clip tokens in training.
        frame_usage: (K,), the same among the frame tokens.
        idle: (K,) int64, training steps since a clip token last used each code.
        steps: training steps so far.
        started: whether the codes are initialised.
        pool: (M,dim), the last clip tokens before k-means; empty rows are zero.
    """

    codebook: Tensor
    weight: Tensor
    usage: Tensor
    frame_usage: Tensor
    idle: Tensor
    steps: Tensor
    started: Tensor
    pool: Tensor

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options = options
        size, dim = options.codebook_size, options.dim
        codes = torch.randn(size, dim)  # at the scale of the layer-normalised tokens
        if options.codebook_update == "loss":
            self.codebook = nn.Parameter(codes)
        else:
            self.register_buffer("codebook", codes)
        # Each code starts with the weight of one token.
        self.register_buffer("weight", torch.full((size,), 1 - options.ema_decay))
        self.register_buffer("usage", torch.zeros(size))
        self.register_buffer("frame_usage", torch.zeros(size))
        self.register_buffer("idle", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer(
            "pool", torch.zeros(POOL_SIZE * size if options.codebook_init == "kmeans" else 0, dim)
        )

    @property
    def active(self) -> bool:
        """Whether tokens are quantised; before, in the first ``unquantized_steps``, they are unchanged."""
        return self.options.unquantized_steps == 0 or bool(self.started)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise tokens, in float32 whatever the precision.

        Args:
            tokens: (...,dim).

        Returns:
            ``VQ(x)`` (...,dim), with a gradient for a codebook that is a parameter, and the same values with
            a straight-through gradient for the tokens and none for the codebook.
        """
        with no_autocast(tokens):
            tokens = tokens.float()
            codes = self.codebook[self.nearest(tokens)] if self.active else tokens.detach()
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
    def update(self, clip: Tensor, frames: Tensor | None = None) -> None:
        """Initialise or update the codebook with the tokens of a training step, of all processes.

        Call it before the codebook is used in the step: it changes the codes in place.

        Args:
            clip: (M,N,dim), clip tokens of this process.
            frames: (F,N,dim), frame tokens of this process; ``None`` in all processes without calibration.
        """
        with torch.autocast(clip.device.type, enabled=False):  # in float32, as in forward
            clip = _gathered(clip)
            frames = clip[:0] if frames is None else _gathered(frames)
            if len(clip):
                self._update(clip, frames)

    def _update(self, clip: Tensor, frames: Tensor) -> None:
        """Initialise or update the codebook with the tokens (M,dim) and (F,dim) of all processes."""
        self.steps += 1
        if not self.started:
            self._collect(clip)
            if self.steps <= self.options.unquantized_steps:
                return
            self._start(clip, frames)
        of_clips, of_frames = self.nearest(clip), self.nearest(frames)
        self._count(of_clips, of_frames)
        if self.options.codebook_update == "ema":
            if self.options.calibration == "local_updates":
                self._average(torch.cat([clip, frames]), torch.cat([of_clips, of_frames]))
            else:
                self._average(clip, of_clips)
        if self.options.revive_dead_codes:
            self._revive(clip)

    def _collect(self, clip: Tensor) -> None:
        """Append clip tokens to the pool, in place of the oldest ones."""
        if len(self.pool):
            self.pool.copy_(torch.cat([self.pool, clip])[-len(self.pool) :])

    def _start(self, clip: Tensor, frames: Tensor) -> None:
        """Set the codes to random tokens, or to the centres of k-means.

        Random codes are all at similar distances from the initial tokens, which hardly depend on the audio,
        so each prototype would always use the same code.
        """
        self.started.fill_(True)
        if self.options.codebook_init == "normal":
            return
        tokens = torch.cat([clip, frames]) if self.options.codebook_init == "all_tokens" else clip
        if self.options.codebook_init == "kmeans":
            tokens = self.pool[self.pool.any(dim=1)]
        order = torch.randperm(len(tokens), device=tokens.device).repeat(
            -(-len(self.codebook) // len(tokens))
        )
        codes = tokens[order[: len(self.codebook)]]
        if self.options.codebook_init == "kmeans":
            codes = kmeans(tokens, codes, KMEANS_ITERATIONS)
        self.codebook.copy_(codes)
        self.pool.zero_()
        broadcast_tensor_(self.codebook)

    def _count(self, of_clips: Tensor, of_frames: Tensor) -> None:
        """Update the usage of the codes with the indices that clip and frame tokens use."""
        for usage, found in ((self.usage, of_clips), (self.frame_usage, of_frames)):
            if len(found):
                counts = torch.bincount(found, minlength=len(usage)).to(usage.dtype)
                share = counts / counts.sum()
                usage.copy_(torch.lerp(share, usage, USAGE_MEMORY) if usage.any() else share)
        self.idle.add_(1)
        self.idle[of_clips] = 0

    def _average(self, tokens: Tensor, found: Tensor) -> None:
        """Move each code to the exponential moving average of its tokens (van den Oord et al. 2017, A.1).

        With ``m_k`` the moving average of the sum of a code's tokens and ``N_k`` that of their number, the
        code is ``m_k / N_k``; without storing ``m_k``, codes without tokens do not change.
        """
        counts, sums = _sums(tokens, found, len(self.codebook))
        added = (1 - self.options.ema_decay) * counts
        self.weight.mul_(self.options.ema_decay).add_(added)
        rate = torch.where(counts > 0, added / self.weight, 0)
        means = sums / counts.clamp(min=1)[:, None]
        self.codebook.add_(rate[:, None] * (means - self.codebook))

    def _revive(self, clip: Tensor) -> None:
        """Set dead codes to different random clip tokens; further ones stay dead until the next step."""
        dead = self.dead().nonzero()[: len(clip), 0]
        drawn = torch.randperm(len(clip), device=clip.device)[: len(dead)]
        self.codebook[dead] = clip[drawn]
        self.weight[dead] = 1 - self.options.ema_decay
        self.idle[dead] = 0
        broadcast_tensor_(self.codebook)

    def dead(self) -> Tensor:
        """Return (K,) bool: codes that no clip token has used for ``dead_after`` training steps."""
        return self.idle >= self.options.dead_after

    def diagnostics(self) -> dict[str, float]:
        """Return the usage of the codebook over about the last 100 training steps; empty before the first.

        ``clip_perplexity`` and ``frame_perplexity`` are the effective numbers of codes (1 to K) of clip and
        frame tokens; ``frames_on_clip_codes`` is the share of frame tokens whose code a clip token has used
        within ``dead_after`` steps, and ``dead_codes`` the number of codes without such a clip token.
        """
        found: dict[str, float] = {}
        if self.usage.any():
            found["clip_perplexity"] = perplexity(self.usage)
        if self.frame_usage.any():
            found["frame_perplexity"] = perplexity(self.frame_usage)
            used = (self.usage > 0) & ~self.dead()
            found["frames_on_clip_codes"] = float(self.frame_usage[used].sum())
        if found:
            found["dead_codes"] = float(self.dead().sum())
        return found


def perplexity(shares: Tensor) -> float:
    """Return the exponential of the entropy of shares (K,) that sum to 1: the effective number of codes."""
    return float(torch.special.entr(shares.double()).sum().exp())


def kmeans(tokens: Tensor, centres: Tensor, iterations: int) -> Tensor:
    """Return the centres (K,dim) after Lloyd iterations over tokens (M,dim); empty clusters keep theirs."""
    for _ in range(iterations):
        counts, sums = _sums(tokens, torch.cdist(tokens, centres).argmin(dim=1), len(centres))
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
    return centres


def _gathered(tokens: Tensor) -> Tensor:
    """Return the tokens (M,N,dim) of all processes as float32 rows."""
    return all_gather_rows(tokens.flatten(0, 1)).float()


def _sums(tokens: Tensor, found: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the number (K,) of tokens (M,dim) with each code index (M,), and their sums (K,dim)."""
    members = one_hot(found, size).to(tokens.dtype)  # as a product: deterministic on all devices
    return members.sum(dim=0), members.T @ tokens


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
    clip: QuantizedTokens, frames: QuantizedTokens | None, options: Options
) -> dict[str, Tensor]:
    """Return the three terms of equation 9, summed over tokens and frames and averaged over clips.

    ``codebook`` is ``|VQ(g) - sg[g]|^2``, with a gradient for the codebook only. With ``calibration``
    ``local_updates`` it includes the frame tokens; with ``codebook_update`` ``ema`` there is no such term.
    ``commit_global`` is ``lambda_com |sg[VQ(g)] - g|^2``, with a gradient for the clip tokens only, and
    ``commit_local`` ``lambda_com |sg[VQ(l)] - l|^2``, with a gradient for the frame tokens only.

    Args:
        clip: tokens of the B clips with valid frames.
        frames: tokens of all their frames; ``None`` without calibration.
        options: with ``lambda_com``.
    """
    clips = max(len(clip.tokens), 1)
    losses: dict[str, Tensor] = {}
    if options.codebook_update == "loss":
        losses["codebook"] = _error(clip.codes, clip.tokens.detach()) / clips
        if frames is not None and options.calibration == "local_updates":
            losses["codebook"] = losses["codebook"] + _error(frames.codes, frames.tokens.detach()) / clips
    for name, group in (("commit_global", clip), ("commit_local", frames)):
        if group is not None:
            losses[name] = options.commit_weight * _error(group.codes.detach(), group.tokens) / clips
    return losses


def _error(codes: Tensor, tokens: Tensor) -> Tensor:
    return (codes - tokens.float()).square().sum()
