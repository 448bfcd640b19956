"""CATR: audio-visual segmentation with a decoupled transformer and queries (Li et al., ACM MM 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from avsbench_harness.method import Method

from .options import Options

if TYPE_CHECKING:
    from avsbench_harness.nn.model import Model
    from avsbench_harness.tasks import Task


class CATR(Method):
    """The plugin; the network is :class:`.model.CATRModel`."""

    name = "catr"
    paper = "Li et al., ACM Multimedia 2023"
    url = "https://github.com/aspirinone/CATR.github.io"
    variants = ("released",)
    tasks = ("s4",)  # the published code reads S4 only
    backbones = ("pvt",)  # its ResNet-50 model is not published

    def build(self, task: Task, backbone: str, *, variant: str, **options: Any) -> Model:
        """The network with random weights, unless ``pretrained=True`` asks for the backbone's ImageNet ones.

        Args:
            task: ``s4``; ``ms3`` has the same network and loss, though it was not published.
            backbone: ``pvt``; any other that the harness knows works too, though it was not published.
            variant: ``released`` is the only one.
            options: fields of :class:`.options.Options`; an unknown one is a ``UsageError``.

        Raises:
            UsageError: the task has classes, which the published network cannot tell apart.
        """
        from avsbench_harness.errors import UsageError, unknown

        from .model import CATRModel

        if variant not in self.variants:
            raise unknown(f"variant of {self.name}", variant, self.variants)
        if task.semantic:
            raise UsageError(f"The released CATR has no class head, so it cannot do {task.name}; it does s4.")
        return CATRModel(task, backbone, Options.of(options))
