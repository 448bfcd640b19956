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
    """Projects VGGish embeddings to audio tokens."""

    def __init__(self, channels: int, options: Options) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, options.dim)
        self.norm = nn.LayerNorm(options.dim, eps=1e-12)
        self.dropout = Dropout(options.dropout)

    def forward(self, audio: Tensor) -> Tensor:
        """Map (...,128) to (...,dim)."""
        tokens: Tensor = self.dropout(self.norm(self.linear(audio)))
        return tokens


class AudioTokens:
    """The audio tokens that are appended to the pixels of a frame (paper equation 3).

    Either the frame's own, as in the paper, or those of all frames of the clip, without a time code, so that
    the network cannot tell which token belongs to which frame (published code).

    Args:
        frames: the valid frames.
        whole: whether the tokens of the whole clip are appended.
    """

    def __init__(self, frames: Frames, whole: bool) -> None:
        self.frames = frames
        self.whole = whole

    def per_frame(self, audio: Tensor) -> Tensor:
        """Map the audio tokens of clips (B,T,dim) to those of each frame, (N,T,dim) or (N,1,dim)."""
        return audio[self.frames.clip] if self.whole else self.frames.pack(audio)[:, None]

    def collect(self, tokens: Tensor) -> Tensor:
        """Map the updated tokens of frames, (N,T,dim) or (N,1,dim), to those of clips (B,T,dim).

        If every frame has the tokens of the whole clip, those of the clip's first frame are used.
        """
        return tokens[self.frames.first] if self.whole else self.frames.unpack(tokens[:, 0])

    def mask(self, pixels: int) -> Tensor | None:
        """Return the attention mask of a frame's tokens, (N,1,1,pixels+T); ``None`` if all are valid."""
        if self.frames.complete or not self.whole:
            return None
        valid = self.frames.valid[self.frames.clip]
        return F.pad(valid, (pixels, 0), value=True)[:, None, None]


class SpatialEncoder(nn.Module):
    """A stack of spatial fusion only (paper equation 3), parallel to the fusion blocks as released."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        count = options.encoder_layers if options.spatial_fusion else 0
        self.layers = nn.ModuleList(EncoderLayer(options) for _ in range(count))

    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """Map tokens (N,S,dim) with position codes (S,dim) to (N,S,dim)."""
        for layer in self.layers:
            tokens = layer(tokens, positions, mask)
        return tokens


class Fusion(nn.Module):
    """Cross-attention, combined with its input tokens (paper equations 4 and 5); no normalisation.

    In the paper output and tokens are added, in the published code multiplied.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.attention = NarrowAttention(options.dim, HEADS)
        self.power = options.fusion_power if options.fusion == "product" else None

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Map tokens (N,Q,dim), keys and values (N,S,dim) to (N,Q,dim)."""
        attended = self.attention(tokens, keys, values, mask=mask)
        if self.power is None:
            return tokens + attended
        for _ in range(self.power):  # the published code multiplies twice
            tokens = tokens * attended
        return tokens


class FusionBlock(nn.Module):
    """Spatial fusion, audio-to-pixel fusion and pixel-to-audio fusion (paper equations 3 to 5).

    The last block has no pixel-to-audio fusion, as its audio tokens are not used.
    """

    def __init__(self, options: Options, *, last: bool) -> None:
        super().__init__()
        self.spatial = EncoderLayer(options) if options.spatial_fusion else None
        self.to_video = Fusion(options) if options.fuses_to_video else None
        self.to_audio = Fusion(options) if options.fuses_to_audio and not last else None
        self.attends_to_fused = options.va_keys == "fused"

    def forward(
        self, video: Tensor, audio: Tensor | None, positions: Tensor, tokens: AudioTokens
    ) -> tuple[Tensor, Tensor | None]:
        """Update pixels (N,P,dim), which have position codes (P,dim), and audio tokens (B,T,dim) if given."""
        frames, pixels = tokens.frames, video.shape[1]
        if self.spatial is not None:
            video, audio = self._fuse_in_space(self.spatial, video, audio, positions, tokens)
        if audio is None:
            return video, None
        fused = video
        if self.to_video is not None:
            # Every pixel of the clip is a query of its own, so frames are processed independently.
            sound = audio[frames.clip]
            mask = None if frames.complete else frames.valid[frames.clip][:, None, None]
            fused = self.to_video(video, sound, sound, mask)
        if self.to_audio is not None:
            source = fused if self.attends_to_fused else video
            keys, values = (frames.unpack(part).flatten(1, 2) for part in (source + positions, source))
            mask = None if frames.complete else frames.valid.repeat_interleave(pixels, 1)[:, None, None]
            audio = self.to_audio(audio, keys, values, mask)
        return fused, audio

    @staticmethod
    def _fuse_in_space(
        layer: nn.Module, video: Tensor, audio: Tensor | None, positions: Tensor, tokens: AudioTokens
    ) -> tuple[Tensor, Tensor | None]:
        """Apply self-attention in each frame, among its pixels and the appended audio tokens."""
        if audio is None:
            return layer(video, positions, None), None
        pixels, appended = video.shape[1], tokens.per_frame(audio)
        codes = F.pad(positions, (0, 0, 0, appended.shape[1]))  # audio tokens have no position code
        mixed = layer(torch.cat((video, appended), dim=1), codes, tokens.mask(pixels))
        return mixed[:, :pixels], tokens.collect(mixed[:, pixels:])


class FusionEncoder(nn.Module):
    """Fusion blocks over the audio tokens of the clip and the pixels of all frames, and their gate."""

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
        """Map pixels (N,h*w,dim), audio (B,T,dim) and position codes (h*w,dim) to a map (N,dim,h,w)."""
        maps = []
        for layer in self.layers:
            video, audio = layer(video, audio, positions, tokens)
            maps.append(video.unflatten(1, shape).permute(0, 3, 1, 2))
        if self.gate is None:
            return maps[-1]
        gated: Tensor = self.gate(maps)
        return gated
