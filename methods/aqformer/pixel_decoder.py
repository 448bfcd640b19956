"""The pixel decoder: audio fusion in the coarser scales, and deformable attention (section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from avsbench_harness.nn import pixel_decoder as mask2former
from avsbench_harness.nn.precision import no_autocast

from .options import Options

#: Channels of a VGGish embedding, the paper's C_a.
AUDIO_DIM = 128


class AudioFusion(nn.Module):
    """Cross-attention from one scale of a frame's visual features to its audio (equations 1 and 2).

    A frame has one audio token, so the softmax of equation 1 over the audio is always 1: every pixel receives
    ``f_v(A_t)``, and ``f_q`` and ``f_k`` are not created. A softmax over the pixels selects the pixels that
    receive the audio.

    Args:
        channels: C_v, channels of the visual features.
        options: options of the network.
    """

    def __init__(self, channels: int, options: Options) -> None:
        super().__init__()
        self.value = nn.Linear(AUDIO_DIM, options.dim)  # f_v
        self.content = nn.Linear(channels, options.dim)  # f_w
        self.over_pixels = options.audio_softmax == "pixels"
        if self.over_pixels:
            # A bias of f_q shifts the logits of all pixels equally, to which the softmax is invariant.
            self.query = nn.Linear(channels, options.fusion_dim, bias=False)  # f_q
            self.key = nn.Linear(AUDIO_DIM, options.fusion_dim)  # f_k

    def forward(self, features: Tensor, audio: Tensor) -> Tensor:
        """Map features (F,C_v,h,w) and audio (F,128) of F frames to ``M`` (F,dim,h,w)."""
        pixels = features.flatten(2).transpose(1, 2)
        attended = self.value(audio)[:, None]  # equation 1 with a softmax of 1
        if self.over_pixels:
            key = self.key(audio)
            # The key is projected onto the pixels' channels, which is cheaper than projecting the pixels.
            logits = pixels @ (key @ self.query.weight)[..., None] / math.sqrt(key.shape[-1])
            attended = logits.softmax(dim=1) * attended  # equation 1
        fused = attended + self.content(pixels)  # equation 2
        return fused.transpose(1, 2).unflatten(2, features.shape[-2:])


class PixelDecoder(nn.Module):
    """Aggregates four feature maps and the audio, frame by frame.

    Equations 1 and 2 are followed by Mask2Former's pixel decoder, to which the paper refers, including its
    input projections and its top-down path to the largest scale.

    Args:
        channels: channels of the backbone's maps at strides 4, 8, 16, 32.
        options: options of the network.
    """

    def __init__(self, channels: Sequence[int], options: Options) -> None:
        super().__init__()
        fine, *coarser = channels
        dim = options.dim
        self.fusions = nn.ModuleList(AudioFusion(size, options) for size in coarser)
        self.aggregate = mask2former.PixelDecoder(
            (fine, *(dim for _ in coarser)),
            dim,
            layers=options.encoder_layers,
            ffn_dim=options.encoder_ffn_dim,
        )
        if not options.output_norm:
            # Object embeddings are sums of many normalised vectors, which equation 6 multiplies with the mask
            # features without scaling: small initial mask features avoid saturated sigmoids.
            nn.init.normal_(self.aggregate.mask_features.weight, std=1 / dim)

    def forward(self, features: Sequence[Tensor], audio: Tensor) -> list[Tensor]:
        """Return the aggregated maps of F frames: scales 1 (stride 32), 2, 3 and the mask features, 4.

        Args:
            features: (F, channels[i], h_i, w_i), finest first.
            audio: (F,128).

        Returns:
            Four maps (F,dim,h_i,w_i), coarsest first.
        """
        fine, *coarser = features
        with no_autocast(fine):
            fused = [
                fuse(level.float(), audio.float()) for fuse, level in zip(self.fusions, coarser, strict=True)
            ]
        mask_features, maps = self.aggregate([fine, *fused])
        return [*maps, mask_features]
