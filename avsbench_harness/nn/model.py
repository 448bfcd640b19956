"""The interface of a method's network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.tasks import Task


@dataclass(frozen=True)
class ParamGroup:
    """Parameters that share a learning rate.

    Attributes:
        name: what the log calls the group.
        params: the parameters.
        lr_scale: multiple of the recipe's learning rate.
        weight_decay: overrides the recipe's where it is not ``None``.
    """

    name: str
    params: list[nn.Parameter]
    lr_scale: float = 1.0
    weight_decay: float | None = None


class Model(nn.Module, ABC):
    """A network that turns a :class:`Batch` into predictions.

    Subclasses set ``task`` and keep the visual backbone under the attribute ``backbone``, which is what a
    recipe freezes.
    """

    task: Task
    backbone: nn.Module

    @abstractmethod
    def forward(self, batch: Batch) -> Any:
        """The method's raw outputs, a dataclass documented in its model card."""

    @abstractmethod
    def predict(self, batch: Batch) -> Tensor:
        """(B,T,H,W) probability of sound (s4, ms3) or (B,T,71,H,W) class scores (avss).

        Frames that do not exist (``batch.valid``) come back as zeros.
        """

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar loss terms with their weights applied; the engine sums them."""

    def loss_counts(self, batch: Batch) -> dict[str, Tensor | None]:
        """Over how many things the terms of :meth:`losses` are averaged on this batch, by their names.

        A batch that is split, into micro-batches or over processes, has as its loss the mean of its parts'
        weighted by these numbers (scalars). Terms that are not named are averaged over the annotated frames;
        those that are ``None`` are sums.
        """
        return {}

    def diagnostics(self) -> dict[str, float]:
        """Figures about the last :meth:`losses` that say how training goes, for the log; none by default."""
        return {}

    def param_groups(self, recipe: Recipe) -> list[ParamGroup]:
        """Learning-rate groups; by default the backbone with the recipe's multiple, and the rest."""
        backbone = list(self.backbone.parameters())
        known = {id(parameter) for parameter in backbone}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in known]
        scale = float(recipe.optimizer.backbone_lr_scale)
        return [ParamGroup("backbone", backbone, lr_scale=scale), ParamGroup("head", rest)]

    def check_sides(self, batch: Batch, stride: int) -> None:
        """Refuse images whose sides are not multiples of ``stride`` with a ``UsageError``."""
        _, _, height, width = batch.shape
        if height % stride or width % stride:
            raise UsageError(
                f"{type(self).__name__.removesuffix('Model')} needs images whose sides are multiples of "
                f"{stride}, got {width}x{height} pixels; change the recipe's image_size."
            )

    def load_upstream(self, state: Mapping[str, Tensor]) -> None:
        """Load a published checkpoint's state dict; entries of the audio encoder are ignored.

        Raises:
            UsageError: entries are missing, left over or of the wrong shape, or the method has no
                published checkpoints.
        """
        raise UsageError(f"{type(self).__name__} has no published checkpoints to load.")
