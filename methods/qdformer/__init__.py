"""QDFormer: audio-visual segmentation with quantised semantic decomposition (Li et al., CVPR 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avsbench_harness.method import Method

from .options import Options

if TYPE_CHECKING:
    from .model import QDFormerModel


class QDFormer(Method):
    """The plugin; the network is :class:`.model.QDFormerModel`."""

    name = "qdformer"
    paper = "Li et al., CVPR 2024"
    url = "https://arxiv.org/abs/2310.00132"
    variants = ("paper",)
    tasks = ("s4", "ms3", "avss")
    backbones = ("r50", "pvt", "swin_t")
    separated_audio = True
    options = Options

    def network(self) -> type[QDFormerModel]:
        """Import and return the network's class."""
        from .model import QDFormerModel

        return QDFormerModel
