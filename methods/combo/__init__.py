"""COMBO: audio-visual segmentation by bilateral relations of multiple orders (Yang et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from avsbench_harness.method import Method

from .options import Options

if TYPE_CHECKING:
    from .model import ComboModel


class Combo(Method):
    """The plugin; the network is :class:`.model.ComboModel`."""

    name = "combo"
    aliases = ("comboi",)
    paper = "Yang et al., CVPR 2024"
    url = "https://github.com/yannqi/COMBO-AVS"
    variants = ("released", "paper")
    tasks = ("s4", "ms3", "avss")
    backbones = ("r50", "pvt")
    ignored_pixels = True
    options = Options

    def network(self) -> type[ComboModel]:
        """Import and return the network's class."""
        from .model import ComboModel

        return ComboModel

    def uses_maskiges(self, options: Mapping[str, Any]) -> bool:
        """Whether ``use_maskige`` is on."""
        return bool(options.get("use_maskige", True))
