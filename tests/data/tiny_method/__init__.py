"""A method small enough to train in a second; also what a method that is being written looks like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from avsbench_harness.method import Method

if TYPE_CHECKING:
    from avsbench_harness.nn.model import Model
    from avsbench_harness.tasks import Task


class Tiny(Method):
    """Two convolutions gated by the sound."""

    name = "tiny"
    aliases = ("tinyseg",)
    paper = "none"
    variants = ("released",)
    tasks = ("s4", "ms3", "avss")
    backbones = ("r50",)

    def build(self, task: Task, backbone: str, *, variant: str, **options: Any) -> Model:
        """The network; ``options`` are fields of :class:`.options.Options`."""
        from avsbench_harness.errors import unknown

        from .model import TinyModel
        from .options import Options

        if variant not in self.variants:
            raise unknown(f"variant of {self.name}", variant, self.variants)
        return TinyModel(task, Options.parse(options, "the options of tiny"))

    def sees_maskiges(self, options: Mapping[str, Any]) -> bool:
        """It is given those that a recipe asks for, and looks at none of them."""
        return True
