"""The decoupled audio-visual encoder: spatial and temporal fusion, and the gate over its blocks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.nn.attention import Attention

from .frames import Frames
from .layers import EncoderLayer
from .options import HEADS, Options


class AudioProjection(nn.Module):
    """VGGish embeddings to tokens."""

    def __init__(self, channels: int, options: Options) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, options.dim)
        self.norm = nn.LayerNorm(options.dim, eps=1e-12)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, audio: Tensor) -> Tensor:
        """(...,128) -> (...,dim)."""
        tokens: Tensor = self.dropout(self.norm(self.linear(audio)))
        return tokens


class AudioTokens:
    """Which sound stands beside the pixels of a frame (paper equation 3).

    ``frame``: that of its own second, as in the paper. ``clip``: that of all seconds of the clip, which
    carry no time code, so that the network cannot tell which belongs to which frame (published code).

    Args:
        frames: the frames that exist.
        whole: ``clip``.
    """

    def __init__(self, frames: Frames, whole: bool) -> None:
        self.frames = frames
        self.whole = whole

    def beside(self, audio: Tensor) -> Tensor:
        """Sound of clips (B,T,dim) -> what each frame gets: (N,T,dim) or (N,1,dim)."""
        return audio[self.frames.clip] if self.whole else self.frames.pack(audio)[:, None]

    def collect(self, tokens: Tensor) -> Tensor:
        """What the frames made of it, (N,T,dim) or (N,1,dim) -> sound of clips (B,T,dim).

        Where every frame has its own version of the whole clip, that of the first frame counts.
        """
        return tokens[self.frames.first] if self.whole else self.frames.unpack(tokens[:, 0])

    def mask(self, pixels: int) -> Tensor | None:
        """Which of a frame's tokens exist, (N,1,1,pixels+T); ``None`` where all do."""
        if self.frames.complete or not self.whole:
            return None
        heard = self.frames.valid[self.frames.clip]
        return F.pad(heard, (pixels, 0), value=True)[:, None, None]


class SpatialEncoder(nn.Module):
    """Self-attention among pixels and sound of one frame (paper equation 3)."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(options) for _ in range(options.encoder_layers))

    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (N,S,dim) and their position codes (S,dim) -> (N,S,dim)."""
        for layer in self.layers:
            tokens = layer(tokens, positions, mask)
        return tokens


class Fusion(nn.Module):
    """Cross-attention whose answer multiplies the tokens that asked; no residual, no normalisation."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.attention = Attention(options.dim, HEADS)
        self.power = options.fusion_power

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (N,Q,dim), keys and values (N,S,dim) -> (N,Q,dim)."""
        answer = self.attention(tokens, keys, values, mask=mask)
        for _ in range(self.power):  # the published code multiplies twice
            tokens = tokens * answer
        return tokens


class TemporalBlock(nn.Module):
    """Spatial fusion, then sound to pixels, then pixels to sound (paper equations 3 to 5, as released).

    The last block's sound is never used; it has no fusion from pixels to sound.
    """

    def __init__(self, options: Options, *, last: bool) -> None:
        super().__init__()
        self.spatial = EncoderLayer(options)
        self.to_video = Fusion(options)
        self.to_audio = None if last else Fusion(options)

    def forward(
        self, video: Tensor, audio: Tensor, positions: Tensor, tokens: AudioTokens
    ) -> tuple[Tensor, Tensor]:
        """Pixels (N,P,dim), sound (B,T,dim) and the pixels' position codes (P,dim) -> pixels and sound."""
        frames, pixels = tokens.frames, video.shape[1]
        beside = tokens.beside(audio)
        codes = F.pad(positions, (0, 0, 0, beside.shape[1]))  # sound has no position
        mixed = self.spatial(torch.cat((video, beside), dim=1), codes, tokens.mask(pixels))
        video, audio = mixed[:, :pixels], tokens.collect(mixed[:, pixels:])

        # Every pixel of the clip asks on its own, so frames can be asked one by one.
        heard = audio[frames.clip]
        mask = None if frames.complete else frames.valid[frames.clip][:, None, None]
        video = self.to_video(video, heard, heard, mask)
        if self.to_audio is not None:
            keys, values = (frames.unpack(part).flatten(1, 2) for part in (video + positions, video))
            mask = None if frames.complete else frames.valid.repeat_interleave(pixels, 1)[:, None, None]
            audio = self.to_audio(audio, keys, values, mask)
        return video, audio


class BlockGate(nn.Module):
    """Weighs the blocks' pixels and adds them (paper equation 6, as released).

    The paper has one gate per channel; the released gates are one number per frame. A 3x3 convolution with
    one channel per gate looks at two neighbouring blocks, and the mean of its sigmoid weighs the later one.
    The first block only speaks through its neighbour's gate.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        dim, gates = options.dim, options.encoder_layers - 1
        self.own_pair = options.later_gates == "own_pair"
        self.conv = nn.Conv2d(2 * dim, gates, 3, padding=1)
        self.merge = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.BatchNorm2d(dim), nn.PReLU())
            for _ in range(gates)
        )

    def gates(self, maps: Sequence[Tensor]) -> Tensor:
        """Weights (N,L-1) of the maps but the first, from all L maps (N,dim,h,w)."""
        first, *later = (self._look(pair) for pair in (pairwise(maps) if self.own_pair else [maps[:2]]))
        if self.own_pair:
            own = (look[:, gate] for gate, look in enumerate(later, start=1))
            return torch.stack((first[:, 0], *own), dim=1)
        # The published code never looks at the later pairs: it sends the first pair's means through the
        # sigmoid once more and averages all channels.
        again = first.sigmoid().mean(dim=1)
        return torch.stack((first[:, 0], *[again] * (len(self.merge) - 1)), dim=1)

    def _look(self, pair: Sequence[Tensor]) -> Tensor:
        """Two maps (N,dim,h,w) -> the mean answer of every channel (N,L-1)."""
        answers: Tensor = self.conv(torch.cat(tuple(pair), dim=1))
        return answers.sigmoid().mean(dim=(2, 3))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """L maps (N,dim,h,w) -> one."""
        weights = self.gates(maps)
        total: Tensor | None = None
        for index, merge in enumerate(self.merge):
            weighted = weights[:, index, None, None, None] * maps[index + 1]
            total = merge(weighted if total is None else total + weighted)
        assert total is not None
        return total


class TemporalEncoder(nn.Module):
    """Blocks that let the sound of the whole clip and the pixels of all frames meet, and their gate."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        count = options.encoder_layers
        self.layers = nn.ModuleList(TemporalBlock(options, last=index == count - 1) for index in range(count))
        self.gate = BlockGate(options)

    def forward(
        self, video: Tensor, audio: Tensor, positions: Tensor, tokens: AudioTokens, shape: tuple[int, int]
    ) -> Tensor:
        """Pixels (N,h*w,dim), sound (B,T,dim) and position codes (h*w,dim) -> a map (N,dim,h,w)."""
        maps = []
        for layer in self.layers:
            video, audio = layer(video, audio, positions, tokens)
            maps.append(video.unflatten(1, shape).permute(0, 3, 1, 2))
        fused: Tensor = self.gate(maps)
        return fused
