"""The Siam-Encoder: features of images and maskiges, and their weighted sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from timm.layers import freeze_batch_norm_2d  # type: ignore[attr-defined] # not in its __all__
from torch import Tensor, nn

from avsbench_harness.nn.backbone import Backbone, build_backbone

from .options import Options

#: Stochastic depth in the published code.
DROP_PATH_RATES = {"pvt": 0.1}
#: Reduction of the hidden layer of a channel weight.
REDUCTION = 16


class SiamEncoder(nn.Module):
    """Two backbones of the same kind, one for images and one for maskiges (paper section 3.1, equations 1-2).

    In the published code both start from the same weights and are trained separately, despite the name.

    Attributes:
        image: the backbone of the images.
        maskige: the backbone of the maskiges; ``None`` without maskiges or with a shared backbone.
    """

    def __init__(self, backbone: str, options: Options) -> None:
        super().__init__()
        self.image = _build(backbone, options)
        separate = options.use_maskige and not options.shared_encoder
        self.maskige = _build(backbone, options) if separate else None

    def forward(self, images: Tensor, source: str) -> list[Tensor]:
        """Map images (N,3,H,W) to four maps at strides 4, 8, 16, 32.

        Args:
            images: images or maskiges.
            source: ``images`` or ``maskige``.
        """
        encoder = self.image if source == "images" or self.maskige is None else self.maskige
        maps: list[Tensor] = encoder(images)
        return maps


class ChannelWeight(nn.Module):
    """Squeeze and excitation: one weight in (0, 1) per channel of a map, from the map's mean pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // REDUCTION, 1)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map (N,C,h,w) to (N,C)."""
        mean = features.mean(dim=(2, 3))
        weight: Tensor = self.fc2(F.relu(self.fc1(mean))).sigmoid()
        return weight


class LinearChannelWeight(nn.Module):
    """One unbounded weight per channel of a map: ``GAP(F) W`` of paper equation 3, with a bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map (N,C,h,w) to (N,C)."""
        weight: Tensor = self.linear(features.mean(dim=(2, 3)))
        return weight


#: Channel weights by the value of the option ``channel_weight``.
CHANNEL_WEIGHTS = {"excitation": ChannelWeight, "linear": LinearChannelWeight}


class ChannelWeights(nn.ModuleList):
    """Adds the maskiges' maps, weighted per channel, to the images' maps (equation 3).

    Args:
        channels: of the four maps.
        kind: a key of ``CHANNEL_WEIGHTS``.
    """

    def __init__(self, channels: Sequence[int], kind: str = "excitation") -> None:
        super().__init__(CHANNEL_WEIGHTS[kind](size) for size in channels)

    def forward(self, features: Sequence[Tensor], maskiges: Sequence[Tensor]) -> list[Tensor]:
        """Map four maps each, (N,C_i,h_i,w_i), to four of the same shapes."""
        return [
            image + weight(maskige)[:, :, None, None] * maskige
            for weight, image, maskige in zip(self, features, maskiges, strict=True)
        ]


class FrozenBatchNorm2d(nn.Module):
    """A batch norm with fixed statistics and affine map."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, getattr(norm, name).detach())

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise (N,C,h,w)."""
        return F.batch_norm(
            maps, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


def freeze_norms(module: nn.Module) -> None:
    """Replace every two-dimensional batch norm of a module by a frozen one of the same name."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            setattr(module, name, FrozenBatchNorm2d(child))
        elif isinstance(child, nn.BatchNorm2d):  # timm's with an activation inside
            setattr(module, name, freeze_batch_norm_2d(child))
        else:
            freeze_norms(child)


def _build(name: str, options: Options) -> Backbone:
    rate = options.drop_path_rate
    backbone = build_backbone(
        name,
        pretrained=options.pretrained,
        drop_path_rate=DROP_PATH_RATES.get(name) if rate is None else rate,
    )
    if options.frozen_norm:
        if not options.pretrained:
            _reset_norms(backbone)
        freeze_norms(backbone)
    return backbone


def _reset_norms(module: nn.Module) -> None:
    """Set the weights of batch norms to 1, as detectron2's frozen ones start.

    timm starts the last one of each residual branch with 0; frozen, it would disable the branch for good.
    """
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)
