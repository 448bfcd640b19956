"""Configuration and helpers of the method tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import torch

from avsbench_harness.data.batch import Batch
from avsbench_harness.data.random_batch import random_batch
from avsbench_harness.method import Method
from avsbench_harness.nn.model import Model
from avsbench_harness.tasks import Task, get_task


class SuiteBase:
    """Configuration of the tests by class attributes.

    Attributes:
        method: the plugin.
        variant: the variant under test; ``None``: the method's first.
        tasks: the tasks that the variant supports; ``None``: all of the method's.
        options: build options of a small network.
        backbone: a small backbone.
        size: side of the images, pixels.
        frames: default number of frames of a clip; ``None``: those of the task's longest clip.
        maskige: whether batches have maskiges.
        clips_are_independent: whether, in evaluation mode, the prediction of a clip is independent of the
            other clips of the batch.
        padding_is_inert: whether a padded clip has the same prediction as the clip without padding.
        takes_features: whether the network takes the backbone's maps from :meth:`Model.maps`, so that the
            recipe's ``backbone.cache`` saves their computation.
        across_clips: names of loss terms that compare frames of different clips of a batch.
        compiler: backend of ``torch.compile`` under test, by default ``AVSB_TEST_COMPILER`` or ``eager``;
            ``inductor`` generates code.
        unused: prefixes of the names of parameters without gradient, each for a documented reason.
    """

    method: ClassVar[Method]
    variant: ClassVar[str | None] = None
    tasks: ClassVar[tuple[str, ...] | None] = None
    options: ClassVar[dict[str, Any]] = {}
    backbone: ClassVar[str] = "resnet10t"
    size: ClassVar[int] = 64
    frames: ClassVar[int | None] = None
    maskige: ClassVar[bool] = False
    clips_are_independent: ClassVar[bool] = True
    padding_is_inert: ClassVar[bool] = True
    takes_features: ClassVar[bool] = True
    unused: ClassVar[tuple[str, ...]] = ()
    across_clips: ClassVar[tuple[str, ...]] = ()
    compiler: ClassVar[str] = os.environ.get("AVSB_TEST_COMPILER", "eager")

    def models(self, seed: int = 0) -> Iterator[Model]:
        """Yield a network for each task, in evaluation mode; the same seed gives the same weights."""
        for name in self._tasks:
            torch.manual_seed(seed)
            yield self.build(get_task(name)).eval()

    def build(self, task: Task) -> Model:
        """Build the small network."""
        return self.method.build(task, self.backbone, variant=self._variant, **self.options)

    def batch(self, task: Task, clips: int = 2, frames: int | None = None, seed: int = 0) -> Batch:
        """Return random clips in which every frame is valid and annotated."""
        batch = random_batch(
            task, clips, frames or self.frames, self.size, "all", maskige=self.maskige, seed=seed
        )
        return replace(batch, valid=batch.valid_frames())

    @property
    def _tasks(self) -> tuple[str, ...]:
        return self.tasks or self.method.tasks

    @property
    def _variant(self) -> str:
        return self.variant or self.method.variants[0]
