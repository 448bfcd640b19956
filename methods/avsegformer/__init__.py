"""AVSegFormer: audio-visual segmentation with a query transformer (Gao et al., AAAI 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from avsbench_harness.method import Method

from .options import Options

if TYPE_CHECKING:
    from avsbench_harness.nn.model import Model
    from avsbench_harness.tasks import Task


class AVSegFormer(Method):
    """The plugin; the network is :class:`.model.AVSegFormerModel`."""

    name = "avsegformer"
    paper = "Gao et al., AAAI 2024"
    url = "https://github.com/vvvb-github/AVSegFormer"
    variants = ("released", "paper")
    tasks = ("s4", "ms3", "avss")
    backbones = ("r50", "pvt", "swin_t")

    def build(self, task: Task, backbone: str, *, variant: str, **options: Any) -> Model:
        """The network with random weights, unless ``pretrained=True`` asks for the backbone's ImageNet ones.

        Args:
            task: decides the number of output channels and the loss.
            backbone: ``r50``, ``pvt``, ``swin_t`` or a timm name.
            variant: ``released`` or ``paper``: the defaults of the options.
            options: fields of :class:`.options.Options`; an unknown one is a ``UsageError``.
        """
        from avsbench_harness.errors import unknown

        from .model import AVSegFormerModel

        if variant not in self.variants:
            raise unknown(f"variant of {self.name}", variant, self.variants)
        return AVSegFormerModel(task, backbone, Options.of(options, task, variant))
