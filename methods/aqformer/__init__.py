"""AQFormer: audio-visual segmentation by audio queries (Huang et al., IJCAI 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from avsbench_harness.method import Method

from .options import Options

if TYPE_CHECKING:
    from avsbench_harness.nn.model import Model
    from avsbench_harness.tasks import Task


class AQFormer(Method):
    """The plugin; the network is :class:`.model.AQFormerModel`."""

    name = "aqformer"
    paper = "Huang et al., IJCAI 2023"
    url = "https://arxiv.org/abs/2309.09501"
    variants = ("paper",)
    tasks = ("s4", "ms3", "avss")
    backbones = ("r50", "pvt", "swin_t")

    def build(self, task: Task, backbone: str, *, variant: str, **options: Any) -> Model:
        """The network with random weights, unless ``pretrained`` asks for the backbone's.

        Args:
            task: decides whether there is a class head, and the number of vanilla queries.
            backbone: ``r50``, ``pvt``, ``swin_t`` or a timm name.
            variant: ``paper`` is the only one: there is no public code.
            options: fields of :class:`.options.Options`; an unknown one is a ``UsageError``.
        """
        from avsbench_harness.errors import unknown

        from .model import AQFormerModel

        if variant not in self.variants:
            raise unknown(f"variant of {self.name}", variant, self.variants)
        return AQFormerModel(task, backbone, Options.of(options, task))
