"""TPAVI: the baseline of AVSBench, pixels that read from all frames by the sound (Zhou et al., ECCV 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from avsbench_harness.method import Method

from .options import Options

if TYPE_CHECKING:
    from avsbench_harness.nn.model import Model
    from avsbench_harness.tasks import Task


class TPAVI(Method):
    """The plugin; the network is :class:`.model.TPAVIModel`."""

    name = "tpavi"
    paper = "Zhou et al., ECCV 2022"
    url = "https://github.com/OpenNLPLab/AVSBench"
    variants = ("released", "paper")
    tasks = ("s4", "ms3", "avss")
    backbones = ("r50", "pvt")

    def build(self, task: Task, backbone: str, *, variant: str, **options: Any) -> Model:
        """The network with random weights, unless ``pretrained=True`` asks for the backbone's ImageNet ones.

        Args:
            task: decides the number of output channels, the loss and some defaults.
            backbone: ``r50``, ``pvt`` or a timm name.
            variant: ``released`` or ``paper``: the defaults of the options.
            options: fields of :class:`.options.Options`; an unknown one is a ``UsageError``.
        """
        from avsbench_harness.errors import unknown

        from .model import TPAVIModel

        if variant not in self.variants:
            raise unknown(f"variant of {self.name}", variant, self.variants)
        return TPAVIModel(task, backbone, Options.of(options, task, variant))
