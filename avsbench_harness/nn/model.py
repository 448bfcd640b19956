"""The base class of a method's network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.nn.frames import select_frames
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.tasks import Task
from avsbench_harness.weights.strict import load_renamed


@dataclass(frozen=True)
class ParamGroup:
    """Parameters that share a learning rate.

    Attributes:
        name: name of the group in the log.
        params: the parameters.
        lr_scale: multiple of the recipe's learning rate.
        weight_decay: replaces the recipe's unless ``None``.
    """

    name: str
    params: list[nn.Parameter]
    lr_scale: float = 1.0
    weight_decay: float | None = None


class Model(nn.Module, ABC):
    """A network from a :class:`Batch` to predictions and losses.

    Subclasses set ``task`` and keep the visual backbone in the attribute ``backbone``, which a recipe may
    freeze. Their :meth:`predict` runs in evaluation mode, whatever mode the network is in.
    """

    task: Task
    backbone: nn.Module

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "predict" in vars(cls):
            setattr(cls, "predict", _in_evaluation_mode(cls.predict))  # noqa: B010

    @abstractmethod
    def forward(self, batch: Batch) -> Any:
        """Return the method's raw outputs, a documented dataclass."""

    @abstractmethod
    def predict(self, batch: Batch) -> Tensor:
        """Return (B,T,H,W) probabilities of sound (s4, ms3) or (B,T,71,H,W) class scores (avss), float32.

        Padded frames (not ``batch.valid``) are zero. All modules are in evaluation mode during the call: no
        dropout, no stochastic depth, no statistics of the batch. Their modes are restored afterwards.
        """

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return named scalar loss terms with their weights applied; the engine sums them."""

    def encode(self, images: Tensor, source: str = "images") -> list[Tensor]:
        """Return the backbone's maps of images (N,3,H,W), from fine to coarse.

        A network that changes the images before, or has several backbones, overrides this; it is also what
        the recipe's ``backbone.cache`` stores.

        Args:
            images: ImageNet-normalised.
            source: the attribute of the batch that they come from, ``images`` or ``maskige``.
        """
        maps: list[Tensor] = self.backbone(images)
        return maps

    def maps(self, batch: Batch, frames: Tensor, source: str = "images") -> list[Tensor]:
        """Return the backbone's maps of the N marked frames, each (N,C,h,w): the batch's own if it has them.

        They are computed once for the copies of a batch with other audio, see :meth:`Batch.once`. A network
        may share later results that do not depend on the audio in the same way.

        Args:
            batch: the clips.
            frames: (B,T) bool, N of them true.
            source: as for :meth:`encode`.
        """
        if source in batch.features:
            return [select_frames(level, frames) for level in batch.features[source]]

        def encode() -> list[Tensor]:
            return self.encode(select_frames(getattr(batch, source), frames), source)

        if batch.shared is None:
            return encode()
        marked = frames.cpu().numpy().tobytes().hex()
        # Copies, because a network may change its maps in place.
        return [level.clone() for level in batch.once(f"maps of {source} {marked}", encode)]

    def loss_counts(self, batch: Batch) -> dict[str, Tensor | None]:
        """Return the number of items that each term of :meth:`losses` averages over on this batch, by name.

        The loss of a batch that is split, into micro-batches or over processes, is the mean of the losses of
        its parts weighted by these numbers (scalars). Terms that are not named are averaged over the
        annotated frames; ``None`` marks a sum.
        """
        return {}

    def diagnostics(self) -> dict[str, float]:
        """Return scalars about the last :meth:`losses` to log beside its terms; none by default."""
        return {}

    def zero_loss(self) -> Tensor:
        """Return the loss of a batch without frames: 0, with a gradient of 0 for every parameter."""
        return torch.stack([parameter.sum() for parameter in self.parameters()]).sum() * 0.0

    def param_groups(self, recipe: Recipe) -> list[ParamGroup]:
        """Return learning-rate groups; by default the backbone with the recipe's multiple, and the rest."""
        backbone = list(self.backbone.parameters())
        known = {id(parameter) for parameter in backbone}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in known]
        scale = float(recipe.optimizer.backbone_lr_scale)
        return [ParamGroup("backbone", backbone, lr_scale=scale), ParamGroup("head", rest)]

    def check_sides(self, batch: Batch, stride: int) -> None:
        """Raise a ``UsageError`` if the sides of the images are not multiples of ``stride``."""
        _, _, height, width = batch.shape
        if height % stride or width % stride:
            raise UsageError(
                f"{type(self).__name__.removesuffix('Model')} needs images whose sides are multiples of "
                f"{stride}, got {width}x{height} pixels; change the recipe's image_size."
            )

    def load_upstream(self, state: Mapping[str, Tensor]) -> None:
        """Load published weights; entries of the audio encoder are ignored.

        Raises:
            UsageError: entries are missing, left over or of the wrong shape, or there are no published
                weights of the method, or with the backbone.
        """
        raise UsageError(f"{type(self).__name__} has no published weights to load.")

    def load_published(
        self,
        state: Mapping[str, Tensor],
        rename: Callable[[str], str | None],
        *,
        backbone: str,
        backbones: Sequence[str],
    ) -> None:
        """Implement :meth:`load_upstream` for weights with renamed entries.

        Args:
            state: the published state dict.
            rename: published name to the name in this network, see :class:`RenameRules`.
            backbone: backbone of this network.
            backbones: backbones of the published weights.
        """
        name = type(self).__name__.removesuffix("Model")
        if backbone not in backbones:
            raise UsageError(
                f"{name} has no published weights with the backbone {backbone}, only with "
                f"{' and '.join(backbones)}."
            )
        load_renamed(self, state, rename, what=f"{name.lower()} for {self.task.name} with {backbone}")


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Set a module and its submodules to evaluation mode, and restore the mode of each afterwards."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _in_evaluation_mode(predict: Callable[[Any, Batch], Tensor]) -> Callable[[Any, Batch], Tensor]:
    @wraps(predict)
    def wrapped(self: Model, batch: Batch) -> Tensor:
        if torch.compiler.is_compiling() and not self.training:  # the engine has set the mode
            return predict(self, batch)
        with evaluation_mode(self):
            return predict(self, batch)

    return wrapped
