"""COMBO: audio-visual segmentation by bilateral relations of multiple orders (Yang et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from avsbench_harness.method import Method

from .options import Options

if TYPE_CHECKING:
    from avsbench_harness.nn.model import Model
    from avsbench_harness.tasks import Task


class Combo(Method):
    """The plugin; the network is :class:`.model.ComboModel`."""

    name = "combo"
    aliases = ("comboi",)
    paper = "Yang et al., CVPR 2024"
    url = "https://github.com/yannqi/COMBO-AVS"
    variants = ("released", "paper")
    tasks = ("s4", "ms3", "avss")
    backbones = ("r50", "pvt")
    #: Pixels of class 255 make no mask.
    ignored_pixels = True

    def build(self, task: Task, backbone: str, *, variant: str, **options: Any) -> Model:
        """The network with random weights, unless ``pretrained=True`` asks for the backbones' ImageNet ones.

        Args:
            task: decides the number of classes.
            backbone: ``r50``, ``pvt`` or a timm name.
            variant: ``released`` or ``paper``: the defaults of the options.
            options: fields of :class:`.options.Options`; an unknown one is a ``UsageError``.
        """
        from avsbench_harness.errors import unknown

        from .model import ComboModel

        if variant not in self.variants:
            raise unknown(f"variant of {self.name}", variant, self.variants)
        return ComboModel(task, backbone, Options.of(options, task, variant))

    def sees_maskiges(self, options: Mapping[str, Any]) -> bool:
        """Unless ``use_maskige`` is off."""
        return bool(options.get("use_maskige", True))
