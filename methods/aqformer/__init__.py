"""AQFormer: audio-visual segmentation by audio queries (Huang et al., IJCAI 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avsbench_harness.method import Method

from .options import Options

if TYPE_CHECKING:
    from .model import AQFormerModel


class AQFormer(Method):
    """The plugin; the network is :class:`.model.AQFormerModel`."""

    name = "aqformer"
    paper = "Huang et al., IJCAI 2023"
    url = "https://arxiv.org/abs/2309.09501"
    variants = ("paper",)
    tasks = ("s4", "ms3", "avss")
    backbones = ("r50", "pvt", "swin_t")
    options = Options

    def network(self) -> type[AQFormerModel]:
        """Import and return the network's class."""
        from .model import AQFormerModel

        return AQFormerModel
