"""One optimiser step on one batch, which may be split: over processes, and into micro-batches.

What comes out does not depend on how it is split, up to rounding: each part's loss terms count by what they
are averaged over, see :meth:`Model.loss_counts`. Exceptions are what looks at other clips of a batch (batch
norms take the statistics of a part; frames that hear or are compared with others keep to it) and random draws
(dropout, points at which masks are compared).
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from avsbench_harness.data.batch import Batch
from avsbench_harness.distributed import all_reduce_sum, even_slice, rank, world_size
from avsbench_harness.engine import optim
from avsbench_harness.engine.acceleration import recomputing
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.system import System, autocast
from avsbench_harness.nn.model import Model

#: Lies between the seeds of two ranks: more than any run has steps.
_RANKS_APART = 1 << 40


class Stepper:
    """A system's optimiser, and how it takes a step.

    Attributes:
        optimizer: over all parameters.
        scaler: of fp16's gradients; does nothing otherwise.
    """

    def __init__(self, run: Run, system: System) -> None:
        self._run = run
        self._system = system
        self._losses: nn.Module = system
        self._learning: list[bool] = []
        self.optimizer = optim.build_optimizer(system.param_groups(run.recipe), run.recipe.optimizer)
        self.scaler = torch.amp.GradScaler(run.device.split(":")[0], enabled=run.recipe.precision == "fp16")

    def prepare(self) -> None:
        """Look again at which parameters learn; call it whenever some were frozen or thawed."""
        learning = [parameter.requires_grad for parameter in self._system.parameters()]
        if world_size() == 1 or learning == self._learning:
            return
        self._learning = learning
        self._losses = self._system
        gc.collect()  # the old one's hooks on the gradients go with it
        self._losses = DistributedDataParallel(self._system, find_unused_parameters=True)

    def step(self, batch: Batch, clips: int, number: int, lr_factor: float) -> dict[str, Tensor]:
        """One step.

        Args:
            batch: this process's share of the batch, see :func:`own_share`.
            clips: of the whole batch.
            number: of the step, counted from 0.
            lr_factor: multiple of the learning rate.

        Returns:
            ``loss`` and its terms over the whole batch, on the device.
        """
        recipe = self._run.recipe
        # Dropout and drop path draw from the global generator: seeded by the step, it needs no saving.
        torch.manual_seed(self._run.spec.seed * 1_000_003 + number + rank() * _RANKS_APART)
        optim.set_lr(self.optimizer, lr_factor)
        self.optimizer.zero_grad(set_to_none=True)
        terms = self._gradients(_parts(batch, clips, recipe.accumulate))
        if recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self._system.parameters(), recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return terms

    def _gradients(self, parts: list[Batch]) -> dict[str, Tensor]:
        """Backward through all parts; returns the terms of the whole batch."""
        whole = world_size() == 1 and len(parts) == 1
        weights: Tensor | None = None
        found: list[Tensor] = []
        names: list[str] = []
        for index, part in enumerate(parts):
            with self._synchronised(index == len(parts) - 1):
                with autocast(self._run):
                    losses: dict[str, Tensor] = self._losses(part)
                    values = torch.stack(list(losses.values()))
                    if not whole:
                        names = list(losses)
                        weights = (
                            part_weights(self._system.model, names, parts) if weights is None else weights
                        )
                        # A part without anything to average may have no finite mean.
                        values = torch.where(weights[index] > 0, values * weights[index], 0)
                    total = values.sum()
                with recomputing(self._system.model.backbone, self._run.recipe):
                    # DistributedDataParallel averages over processes, and the weights are for a sum.
                    self.scaler.scale(total * world_size() if world_size() > 1 else total).backward()
            found.append(values.detach())
        if whole:
            return {"loss": found[0].sum(), **{name: term.detach() for name, term in losses.items()}}
        terms = all_reduce_sum(torch.stack(found).sum(dim=0))
        return {"loss": terms.sum(), **dict(zip(names, terms, strict=True))}

    def _synchronised(self, now: bool) -> AbstractContextManager[None]:
        """Gradients are exchanged once per step, with the last part's."""
        if now or not isinstance(self._losses, DistributedDataParallel):
            return nullcontext()
        waiting: AbstractContextManager[None] = self._losses.no_sync()
        return waiting


def part_weights(model: Model, names: Sequence[str], parts: Sequence[Batch]) -> Tensor:
    """How much the loss terms of parts of a batch count in those of the whole, (parts, terms).

    Args:
        model: says over what its terms are averaged.
        names: of the terms.
        parts: of this process; those of the others are asked for.
    """
    rows = []
    for part in parts:
        counts, annotated = model.loss_counts(part), part.annotated_frames().sum()
        row = [counts.get(name, annotated) for name in names]
        rows.append(
            torch.stack(
                [
                    annotated.new_tensor(-1.0, dtype=torch.float64) if count is None else count.double()
                    for count in row
                ]
            )
        )
    own = torch.stack(rows)
    total = all_reduce_sum(own.clamp(min=0).sum(dim=0)).clamp(min=1e-9)
    return torch.where(own < 0, 1.0, own / total).float()


def own_share(clips: int) -> slice:
    """The clips of a batch that this process reads; the first one where there is none for it."""
    found = even_slice(clips, world_size(), rank())
    return found if found.stop > found.start else slice(0, 1)


def _parts(batch: Batch, clips: int, accumulate: int) -> list[Batch]:
    """This process's share of a batch of ``clips`` clips in micro-batches, as many as others have."""
    count = min(accumulate, -(-clips // world_size()))
    if world_size() == 1 and count == 1:
        return [batch]
    begin = even_slice(clips, world_size(), rank()).start
    found = []
    for index in range(rank() * count, (rank() + 1) * count):
        place = even_slice(clips, world_size() * count, index)
        own = batch.select(slice(place.start - begin, place.stop - begin))
        found.append(own if place.stop > place.start else _blank(batch.select(slice(0, 1))))
    return found


def _blank(batch: Batch) -> Batch:
    """A batch in which no frame exists."""
    nothing = torch.zeros_like(batch.valid_frames())
    return replace(batch, images=torch.zeros_like(batch.images), valid=nothing, annotated=nothing)
