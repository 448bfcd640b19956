"""CATR: audio-visual segmentation with a decoupled transformer and queries (Li et al., ACM MM 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from avsbench_harness.errors import UsageError
from avsbench_harness.method import Method, check_variant
from avsbench_harness.tasks import TASKS

from .options import Options

if TYPE_CHECKING:
    from avsbench_harness.nn.model import Model
    from avsbench_harness.tasks import Task

    from .model import CATRModel


class CATR(Method):
    """The plugin; the network is :class:`.model.CATRModel`."""

    name = "catr"
    paper = "Li et al., ACM Multimedia 2023"
    url = "https://github.com/aspirinone/CATR.github.io"
    variants = ("released", "paper")
    tasks = ("s4", "ms3", "avss")
    backbones = ("r50", "pvt")
    options = Options

    def network(self) -> type[CATRModel]:
        """Import and return the network's class."""
        from .model import CATRModel

        return CATRModel

    def default_variant(self, task: str) -> str:
        """Return ``released``, but ``paper`` for avss, which the released network does not support."""
        return "paper" if TASKS[task].semantic else "released"

    def build(self, task: Task, backbone: str, *, variant: str | None = None, **options: Any) -> Model:
        """See :meth:`Method.build`; the released network has no class head, so it does not support avss."""
        if check_variant(self, variant, task.name) == "released" and task.semantic:
            raise UsageError(
                f"The released CATR has no class head, so it cannot do {task.name}; the variant paper can."
            )
        return super().build(task, backbone, variant=variant, **options)
