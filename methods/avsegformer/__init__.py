"""AVSegFormer: audio-visual segmentation with a query transformer (Gao et al., AAAI 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avsbench_harness.method import Method

from .options import Options

if TYPE_CHECKING:
    from .model import AVSegFormerModel


class AVSegFormer(Method):
    """The plugin; the network is :class:`.model.AVSegFormerModel`."""

    name = "avsegformer"
    paper = "Gao et al., AAAI 2024 (released); arXiv 2307.01146v1 (arxiv, paper)"
    url = "https://github.com/vvvb-github/AVSegFormer"
    variants = ("released", "arxiv", "paper")
    tasks = ("s4", "ms3", "avss")
    backbones = ("r50", "pvt", "swin_t")
    options = Options

    def network(self) -> type[AVSegFormerModel]:
        """Import and return the network's class."""
        from .model import AVSegFormerModel

        return AVSegFormerModel
