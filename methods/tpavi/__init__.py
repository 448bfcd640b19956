"""TPAVI: the AVSBench baseline, temporal pixel-wise audio-visual interaction (Zhou et al., ECCV 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avsbench_harness.method import Method

from .options import Options

if TYPE_CHECKING:
    from .model import TPAVIModel


class TPAVI(Method):
    """The plugin; the network is :class:`.model.TPAVIModel`."""

    name = "tpavi"
    paper = "Zhou et al., ECCV 2022"
    url = "https://github.com/OpenNLPLab/AVSBench"
    variants = ("released", "paper")
    tasks = ("s4", "ms3", "avss")
    backbones = ("r50", "pvt")
    options = Options

    def network(self) -> type[TPAVIModel]:
        """Import and return the network's class."""
        from .model import TPAVIModel

        return TPAVIModel
