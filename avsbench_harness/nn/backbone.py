"""Visual backbones through timm, with weights from this machine; nothing is downloaded."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from avsbench_harness.data.batch import IMAGENET_MEAN, IMAGENET_STD
from avsbench_harness.errors import UsageError
from avsbench_harness.weights import backbone_names, timm_names
from avsbench_harness.weights.pretrained import find_pretrained
from avsbench_harness.weights.state_files import read_state


class Backbone(nn.Module):
    """Images to four feature maps.

    Attributes:
        body: timm's feature extractor; its state-dict names are timm's (``features_only``), so the names of
            published weights map onto ``body.<timm name>``.
        channels: of the four maps.
        strides: of the four maps, in pixels: 4, 8, 16, 32.

    Args:
        body: see above.
        mean: mean of the RGB channels that the body's pretrained weights expect; images, which are
            normalised by ImageNet's, are converted if it differs.
        std: likewise.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(
        self,
        body: nn.Module,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        as_ours = tuple(mean) == IMAGENET_MEAN and tuple(std) == IMAGENET_STD
        ours, theirs = (
            torch.tensor(pair).view(2, 3, 1, 1) for pair in ((IMAGENET_MEAN, IMAGENET_STD), (mean, std))
        )
        self.register_buffer("scale", None if as_ours else ours[1] / theirs[1], persistent=False)
        self.register_buffer(
            "shift", None if as_ours else (ours[0] - theirs[0]) / theirs[1], persistent=False
        )
        self.body = body
        info: Any = body.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides = timm_names.STRIDES
        # In Swin and its relatives the channel is the last axis.
        self._channels_last = getattr(body, "output_fmt", None) == "NHWC"

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N,3,H,W) ImageNet-normalised images to four maps (N, channels[i], H/strides[i], W/strides[i]).

        Sides that a stride does not divide are rounded up, and for some timm models refused.
        """
        if self.scale is not None and self.shift is not None:
            images = images * self.scale + self.shift
        maps: list[Tensor] = self.body(images)
        if self._channels_last:
            return [features.permute(0, 3, 1, 2).contiguous() for features in maps]
        return maps


def build_backbone(
    name: str, pretrained: bool | Path = False, drop_path_rate: float | None = None
) -> Backbone:
    """Build a backbone by alias (``r50``, ``pvt``, ``swin_t``) or by the name of a timm model of four stages.

    Args:
        name: alias or timm name, optionally with a weights tag instead of timm's default.
        pretrained: ``True`` for the file of :func:`find_pretrained`, or a file; ``False`` for random weights.
        drop_path_rate: rate of stochastic depth; ``None`` for timm's default.

    Raises:
        UsageError: the name is unknown, the model lacks the four stages or stochastic depth, or the file
            does not fit.
        MissingDataError: no ImageNet weights are on this machine.
    """
    full = backbone_names.resolve(name)
    accepted = inspect.signature(type(timm_names.skeleton(full))).parameters
    options: dict[str, float | bool] = {}
    if "strict_img_size" in accepted:  # window attention that otherwise takes its default size only
        options["strict_img_size"] = False
    if drop_path_rate is not None:
        if "drop_path_rate" not in accepted:
            raise UsageError(f"Backbone '{name}' has no stochastic depth; leave drop_path_rate out.")
        options["drop_path_rate"] = drop_path_rate
    cfg: Any = get_pretrained_cfg(full)
    backbone = Backbone(
        timm_names.create_body(full, **options),
        *((cfg.mean, cfg.std) if cfg is not None else (IMAGENET_MEAN, IMAGENET_STD)),
    )
    if pretrained:
        file = find_pretrained(name) if pretrained is True else pretrained
        state = read_state(file)
        try:
            backbone.body.load_state_dict(timm_names.fit_state(full, state))
        except UsageError as error:
            raise UsageError(f"{file}: {error}") from None
    return backbone
