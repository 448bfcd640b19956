"""The decoupled audio-visual encoder: spatial and temporal fusion."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.nn.dropout import Dropout

from .frames import Frames
from .gate import build_gate
from .layers import EncoderLayer
from .narrow import NarrowAttention
from .options import HEADS, Options


class AudioProjection(nn.Module):
    """VGGish embeddings to tokens."""

    def __init__(self, channels: int, options: Options) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, options.dim)
        self.norm = nn.LayerNorm(options.dim, eps=1e-12)
        self.dropout = Dropout(options.dropout)

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
    """A stack of spatial fusion alone (paper equation 3), beside the other blocks in the released code."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        count = options.encoder_layers if options.spatial_fusion else 0
        self.layers = nn.ModuleList(EncoderLayer(options) for _ in range(count))

    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (N,S,dim) and their position codes (S,dim) -> (N,S,dim)."""
        for layer in self.layers:
            tokens = layer(tokens, positions, mask)
        return tokens


class Fusion(nn.Module):
    """Cross-attention whose answer joins the tokens that asked (paper equations 4 and 5); no normalisation.

    In the paper the two are added, in the published code multiplied.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.attention = NarrowAttention(options.dim, HEADS)
        self.power = options.fusion_power if options.fusion == "product" else None

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (N,Q,dim), keys and values (N,S,dim) -> (N,Q,dim)."""
        answer = self.attention(tokens, keys, values, mask=mask)
        if self.power is None:
            return tokens + answer
        for _ in range(self.power):  # the published code multiplies twice
            tokens = tokens * answer
        return tokens


class FusionBlock(nn.Module):
    """Spatial fusion, then sound to pixels and pixels to sound (paper equations 3 to 5).

    Nobody reads the last block's sound; it has no fusion from pixels to sound.
    """

    def __init__(self, options: Options, *, last: bool) -> None:
        super().__init__()
        self.spatial = EncoderLayer(options) if options.spatial_fusion else None
        self.to_video = Fusion(options) if options.pixels_hear else None
        self.to_audio = Fusion(options) if options.sound_sees and not last else None
        self.reads_fused = options.va_keys == "fused"

    def forward(
        self, video: Tensor, audio: Tensor | None, positions: Tensor, tokens: AudioTokens
    ) -> tuple[Tensor, Tensor | None]:
        """Pixels (N,P,dim), sound (B,T,dim) or none, and the pixels' position codes (P,dim) -> the two."""
        frames, pixels = tokens.frames, video.shape[1]
        if self.spatial is not None:
            video, audio = self._fuse_in_space(self.spatial, video, audio, positions, tokens)
        if audio is None:
            return video, None
        fused = video
        if self.to_video is not None:
            # Every pixel of the clip asks on its own, so frames can be asked one by one.
            heard = audio[frames.clip]
            mask = None if frames.complete else frames.valid[frames.clip][:, None, None]
            fused = self.to_video(video, heard, heard, mask)
        if self.to_audio is not None:
            seen = fused if self.reads_fused else video
            keys, values = (frames.unpack(part).flatten(1, 2) for part in (seen + positions, seen))
            mask = None if frames.complete else frames.valid.repeat_interleave(pixels, 1)[:, None, None]
            audio = self.to_audio(audio, keys, values, mask)
        return fused, audio

    @staticmethod
    def _fuse_in_space(
        layer: nn.Module, video: Tensor, audio: Tensor | None, positions: Tensor, tokens: AudioTokens
    ) -> tuple[Tensor, Tensor | None]:
        """Self-attention in each frame, among its pixels and the sound beside them."""
        if audio is None:
            return layer(video, positions, None), None
        pixels, beside = video.shape[1], tokens.beside(audio)
        codes = F.pad(positions, (0, 0, 0, beside.shape[1]))  # sound has no position
        mixed = layer(torch.cat((video, beside), dim=1), codes, tokens.mask(pixels))
        return mixed[:, :pixels], tokens.collect(mixed[:, pixels:])


class FusionEncoder(nn.Module):
    """Blocks in which the sound of the whole clip and the pixels of all frames meet, and their gate."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        count = options.encoder_layers
        self.layers = nn.ModuleList(FusionBlock(options, last=index == count - 1) for index in range(count))
        self.gate = build_gate(options)

    def forward(
        self,
        video: Tensor,
        audio: Tensor | None,
        positions: Tensor,
        tokens: AudioTokens,
        shape: tuple[int, int],
    ) -> Tensor:
        """Pixels (N,h*w,dim), sound (B,T,dim) and position codes (h*w,dim) -> a map (N,dim,h,w)."""
        maps = []
        for layer in self.layers:
            video, audio = layer(video, audio, positions, tokens)
            maps.append(video.unflatten(1, shape).permute(0, 3, 1, 2))
        if self.gate is None:
            return maps[-1]
        gated: Tensor = self.gate(maps)
        return gated
