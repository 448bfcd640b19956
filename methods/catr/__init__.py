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
    variants = ("released", "paper")
    tasks = ("s4", "ms3", "avss")
    backbones = ("r50", "pvt")

    def build(self, task: Task, backbone: str, *, variant: str, **options: Any) -> Model:
        """The network with random weights, unless ``pretrained=True`` asks for the backbone's ImageNet ones.

        Args:
            task: ``s4``, ``ms3`` or, but not as released, ``avss``.
            backbone: ``r50``, ``pvt`` or any other that the harness knows.
            variant: ``released`` or ``paper``: the defaults of the options.
            options: fields of :class:`.options.Options`; an unknown one is a ``UsageError``.

        Raises:
            UsageError: the released network is asked for classes, which it cannot tell apart.
        """
        from avsbench_harness.errors import UsageError, unknown

        from .model import CATRModel

        if variant not in self.variants:
            raise unknown(f"variant of {self.name}", variant, self.variants)
        if variant == "released" and task.semantic:
            raise UsageError(
                f"The released CATR has no class head, so it cannot do {task.name}; the variant paper can."
            )
        return CATRModel(task, backbone, Options.of(options, task, variant))
