"""The pixel decoder: sound into the coarser scales, and deformable attention between them (section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from avsbench_harness.nn import pixel_decoder as mask2former

from .options import Options

#: Channels of a VGGish embedding, the paper's C_a.
AUDIO_DIM = 128


class AudioFusion(nn.Module):
    """Cross-attention of the sound of a frame into one scale of its visual features (equations 1 and 2).

    A frame has one audio token, so the softmax of equation 1 over the audio is 1 whatever ``f_q`` and ``f_k``
    say: every pixel receives ``f_v(A_t)``, and the two do not exist. Over the pixels it chooses where the
    sound goes.

    Args:
        channels: C_v, of the visual features.
        options: the network's.
    """

    def __init__(self, channels: int, options: Options) -> None:
        super().__init__()
        self.value = nn.Linear(AUDIO_DIM, options.dim)  # f_v
        self.content = nn.Linear(channels, options.dim)  # f_w
        self.over_pixels = options.audio_softmax == "pixels"
        if self.over_pixels:
            # A bias of f_q moves the logits of all pixels alike, which the softmax over them undoes.
            self.query = nn.Linear(channels, options.fusion_dim, bias=False)  # f_q
            self.key = nn.Linear(AUDIO_DIM, options.fusion_dim)  # f_k

    def forward(self, features: Tensor, audio: Tensor) -> Tensor:
        """Features (F,C_v,h,w) and sounds (F,128) of F frames -> ``M`` (F,dim,h,w)."""
        pixels = features.flatten(2).transpose(1, 2)
        heard = self.value(audio)[:, None]  # equation 1 where the softmax is 1
        if self.over_pixels:
            key = self.key(audio)
            # The key goes back onto the pixels' channels, which costs less than projecting the pixels.
            logits = pixels @ (key @ self.query.weight)[..., None] / math.sqrt(key.shape[-1])
            heard = logits.softmax(dim=1) * heard  # equation 1
        fused = heard + self.content(pixels)  # equation 2
        return fused.transpose(1, 2).unflatten(2, features.shape[-2:])


class PixelDecoder(nn.Module):
    """Four feature maps and the sound to the aggregated ones, frame by frame.

    Behind equations 1 and 2 stands Mask2Former's pixel decoder, its input projections and its top-down path
    to the largest scale included: the paper refers to it for what follows.

    Args:
        channels: of the backbone's maps at strides 4, 8, 16, 32.
        options: the network's.
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
        # Object embeddings are sums of many normalised vectors, and equation 6 multiplies them with the
        # mask features as they are: small ones keep the first masks out of the sigmoid's flat ends.
        nn.init.normal_(self.aggregate.mask_features.weight, std=1 / dim)

    def forward(self, features: Sequence[Tensor], audio: Tensor) -> list[Tensor]:
        """Aggregated maps of F frames, by scale: 1 (stride 32), 2, 3 and the mask features, 4 (stride 4).

        Args:
            features: (F, channels[i], h_i, w_i), finest first.
            audio: (F,128).

        Returns:
            Four maps (F,dim,h_i,w_i), coarsest first.
        """
        fine, *coarser = features
        with torch.autocast(fine.device.type, enabled=False):
            fused = [
                fuse(level.float(), audio.float()) for fuse, level in zip(self.fusions, coarser, strict=True)
            ]
        mask_features, maps = self.aggregate([fine, *fused])
        return [*maps, mask_features]
