"""MyMethod: audio-visual segmentation with channel weights from the audio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avsbench_harness.method import Method

from .options import Options

if TYPE_CHECKING:
    from .model import MyMethodModel


class MyMethod(Method):
    """The plugin; the network is :class:`.model.MyMethodModel`."""

    name = "my_method"
    paper = "unpublished"
    variants = ("released",)
    tasks = ("s4", "ms3", "avss")
    backbones = ("r50", "pvt")
    options = Options

    def network(self) -> type[MyMethodModel]:
        """Import and return the network's class."""
        from .model import MyMethodModel

        return MyMethodModel
