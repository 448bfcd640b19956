"""The semantic-guided mask decoder (section 3.4, Figure 4b, equation 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoders import pixel_positions
from .layers import DecoderLayer, two_layers
from .options import GROUPS, Options

#: Initial probability of a class, as in RetinaNet's focal loss (Lin et al. 2017, section 3.3).
CLASS_PRIOR = 0.01


@dataclass(frozen=True)
class FramePredictions:
    """Predictions of the Q queries of F frames.

    Attributes:
        class_logits: (F,Q,C), before the sigmoid.
        boxes: (F,Q,4) in [0, 1]: centre x, centre y, width, height, relative to the image.
        mask_logits: (F,Q,H/4,W/4), before the sigmoid.
    """

    class_logits: Tensor
    boxes: Tensor
    mask_logits: Tensor

    def select(self, frames: tuple[int, Tensor]) -> FramePredictions:
        """Return the predictions of some frames of (B,T,...): a clip's index, and (T,) bool."""
        return FramePredictions(self.class_logits[frames], self.boxes[frames], self.mask_logits[frames])


class FeaturePyramid(nn.Module):
    """The feature pyramid network (Lin et al. 2017): ``f_out`` at stride 4 from fused and backbone maps.

    Args:
        channels: channels of the backbone's maps at strides 4, 8 and 16.
        dim: channels of all other maps.
    """

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(size, dim, 1) for size in channels)
        self.output = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.GroupNorm(GROUPS, dim), nn.ReLU())

    def forward(self, maps: Sequence[Tensor], fused: Tensor) -> Tensor:
        """Fuse three maps (F,channels[i],h_i,w_i), finest first, and ``f'_v`` (F,dim,h,w) at stride 4."""
        pyramid = fused
        for lateral, level in zip(reversed(self.laterals), reversed(maps), strict=True):
            side = lateral(level)
            pyramid = side + F.interpolate(pyramid, size=side.shape[-2:], mode="nearest")
        finest: Tensor = self.output(pyramid)
        return finest


class MaskDecoder(nn.Module):
    """Decodes masks, classes and boxes of every frame from queries and visual features.

    In ``TrD_segm`` the queries of a frame attend to ``f'_{v,t}``. ``phi_segm`` maps each query to a dynamic
    filter ``theta_{i,t}`` (here the kernel and the bias of a 1x1 convolution), and the mask is
    ``M_{i,t} = f_t^out * theta_{i,t}`` (equation 7); two more two-layer MLPs predict class and box.

    Args:
        channels: channels of the backbone's maps at strides 4, 8 and 16.
        classes: number of classes.
        options: see :class:`.options.Options`.
    """

    def __init__(self, channels: Sequence[int], classes: int, options: Options) -> None:
        super().__init__()
        dim = options.dim
        self.pyramid = FeaturePyramid(channels, dim)
        self.query_positions = (
            nn.Parameter(torch.randn(options.tokens, dim)) if options.query_positions else None
        )
        self.layers = nn.ModuleList(DecoderLayer(options) for _ in range(options.decoder_layers))
        self.filters = two_layers(dim, dim, dim + 1)
        self.classify = two_layers(dim, dim, classes)
        self.locate = two_layers(dim, dim, 4)
        last = self.classify[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, -torch.tensor((1 - CLASS_PRIOR) / CLASS_PRIOR).log().item())

    def forward(
        self, queries: Tensor, video: Tensor, maps: Sequence[Tensor], *, auxiliary: bool = False
    ) -> list[FramePredictions]:
        """Return the predictions for F valid frames of every layer with ``auxiliary``, else of the last one.

        Args:
            queries: (F,Q,dim), Q a multiple of the number of tokens.
            video: (F,dim,h,w), ``f'_v``.
            maps: the backbone's maps at strides 4, 8 and 16, (F,channels[i],h_i,w_i).
        """
        memory = video.flatten(2).transpose(1, 2)
        places = pixel_positions(video)
        positions: Tensor | float = 0.0
        if self.query_positions is not None:
            positions = self.query_positions.repeat(queries.shape[1] // len(self.query_positions), 1)
        decoded = []
        for layer in self.layers:
            queries = layer(queries, memory, positions=positions, memory_positions=places)
            decoded.append(queries)
        finest = self.pyramid(maps, video)
        return [
            FramePredictions(
                class_logits=self.classify(outputs),
                boxes=self.locate(outputs).sigmoid(),
                mask_logits=dynamic_convolution(finest, self.filters(outputs)),
            )
            for outputs in (decoded if auxiliary else decoded[-1:])
        ]


def dynamic_convolution(features: Tensor, filters: Tensor) -> Tensor:
    """Apply filters (F,Q,dim + 1), kernel and bias, to features (F,dim,h,w) (equation 7): (F,Q,h,w)."""
    kernels, biases = filters[..., :-1], filters[..., -1:]
    return (kernels @ features.flatten(2) + biases).unflatten(2, features.shape[-2:])
