"""One optimiser step on one batch, which may be split over processes and into micro-batches.

The result does not depend on the split, up to rounding: the loss terms of each part are weighted by the
number of elements that they are averaged over, see :meth:`Model.loss_counts`. Exceptions are operations
across the clips of a batch (batch norms use the statistics of a part; losses that compare frames of
different clips use those of a part) and random draws (dropout, sampled points).
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from avsbench_harness.data.batch import Batch
from avsbench_harness.distributed import all_reduce_sum, even_slice, rank, world_size
from avsbench_harness.engine import optim
from avsbench_harness.engine.acceleration import recomputing
from avsbench_harness.engine.contract import check_gradients
from avsbench_harness.engine.system import System, autocast
from avsbench_harness.errors import AvsbError
from avsbench_harness.nn.model import Model
from avsbench_harness.recipe.schema import Recipe

#: Difference between the seeds of two ranks: larger than the number of steps of any run.
_RANK_SEED_STRIDE = 1 << 40


class Stepper:
    """The optimiser of a system, and its training step.

    Args:
        system: the network with its audio encoder, on its device.
        recipe: optimiser, precision, accumulation and gradient clipping.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        seed: of the run; the random generator is reseeded in every step.

    Attributes:
        optimizer: over all parameters.
        scaler: scales the gradients of fp16; disabled otherwise.
        gradient_norm: L2 norm of all gradients of the last step before they were clipped; ``None`` before it.
    """

    def __init__(self, system: System, recipe: Recipe, device: str, *, seed: int = 0) -> None:
        self._system = system
        self._recipe = recipe
        self._device = device
        self._seed = seed
        self._standalone = False
        self._losses: nn.Module = system
        self._trainable: list[bool] = []
        self._gradients_checked = False
        self.gradient_norm: Tensor | None = None
        self.optimizer = optim.build_optimizer(system.param_groups(recipe), recipe.optimizer)
        self.scaler = torch.amp.GradScaler(device.split(":")[0], enabled=recipe.precision == "fp16")

    def standalone(self) -> Stepper:
        """A stepper over the same parameters that works in this process alone, in whole batches.

        It shares the optimiser, uses no collectives, and calls none of the parameters' gradient hooks.
        """
        alone = copy.copy(self)
        alone._standalone = True
        alone._losses = self._system
        alone._recipe = self._recipe.model_copy(update={"accumulate": 1})
        return alone

    @property
    def _world(self) -> int:
        return 1 if self._standalone else world_size()

    @property
    def _rank(self) -> int:
        return 0 if self._standalone else rank()

    def update_trainable(self) -> None:
        """Rebuild the distributed wrapper if parameters were frozen or unfrozen since the last call."""
        trainable = [parameter.requires_grad for parameter in self._system.parameters()]
        if self._world == 1 or trainable == self._trainable:
            return
        self._trainable = trainable
        self._losses = self._system
        gc.collect()  # removes the old wrapper's gradient hooks
        self._losses = DistributedDataParallel(self._system, find_unused_parameters=True)

    def step(self, batch: Batch, clips: int, number: int, lr_factor: float) -> dict[str, Tensor]:
        """Update the parameters once.

        Args:
            batch: this process's share of the batch, see :func:`own_share`.
            clips: number of clips of the whole batch.
            number: index of the step, from 0.
            lr_factor: multiple of the learning rate.

        Returns:
            ``loss`` and its terms over the whole batch, on the device.

        Raises:
            AvsbError: the losses are no dict of scalars, or those of the first batch have no gradient.
        """
        # Dropout and drop path draw from the global generator: seeded by the step, it needs no saving.
        torch.manual_seed((self._seed * 1_000_003 + number + self._rank * _RANK_SEED_STRIDE) % 2**64)
        optim.set_lr(self.optimizer, lr_factor)
        self.optimizer.zero_grad(set_to_none=True)
        terms = self._gradients(self._micro_batches(batch, clips))
        if not self._gradients_checked:
            check_gradients(self._system.model.parameters(), batch, self._system.name)
            self._gradients_checked = True
        if self._recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            self.gradient_norm = torch.nn.utils.clip_grad_norm_(
                self._system.parameters(), self._recipe.clip_norm
            )
        else:
            gradients = [p.grad for p in self._system.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            self.gradient_norm = norm / self.scaler.scale(torch.ones_like(norm))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return terms

    def _gradients(self, parts: list[Batch]) -> dict[str, Tensor]:
        """Accumulate the gradients of all parts; returns the terms of the whole batch."""
        whole = self._world == 1 and len(parts) == 1
        weights: Tensor | None = None
        found: list[Tensor] = []
        names: list[str] = []
        for index, part in enumerate(parts):
            with self._synchronized(last=index == len(parts) - 1):
                with autocast(self._recipe.precision, self._device):
                    losses: dict[str, Tensor] = self._losses(part)
                    values = torch.stack(list(losses.values()))
                    if not whole:
                        names = list(losses)
                        if weights is None:
                            weights = part_weights(self._system.model, names, parts, self._world > 1)
                        # The mean of a part without elements may be not finite.
                        values = torch.where(weights[index] > 0, values * weights[index], 0)
                    total = values.sum()
                with recomputing(self._system.model.backbone, self._recipe):
                    self._backward(total)
                separate_gradients(self._system.parameters())
            found.append(values.detach())
        if whole:
            return {"loss": found[0].sum(), **{name: term.detach() for name, term in losses.items()}}
        terms = torch.stack(found).sum(dim=0)
        if self._world > 1:
            terms = all_reduce_sum(terms)
        return {"loss": terms.sum(), **dict(zip(names, terms, strict=True))}

    def _backward(self, total: Tensor) -> None:
        """Add the gradients of a part's loss to those of the parameters."""
        if not self._standalone:
            # DistributedDataParallel averages over processes, and the weights are for a sum.
            self.scaler.scale(total * self._world if self._world > 1 else total).backward()
            return
        parameters = [parameter for parameter in self._system.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(self.scaler.scale(total), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def _synchronized(self, *, last: bool) -> AbstractContextManager[None]:
        """Exchange gradients between processes only once per step, with the last part's."""
        if last or not isinstance(self._losses, DistributedDataParallel):
            return nullcontext()
        unsynchronized: AbstractContextManager[None] = self._losses.no_sync()
        return unsynchronized

    def _micro_batches(self, batch: Batch, clips: int) -> list[Batch]:
        """This process's share of a batch of ``clips`` clips, in as many micro-batches on every rank."""
        world, own = self._world, self._rank
        count = min(self._recipe.accumulate, -(-clips // world))
        if world == 1 and count == 1:
            return [batch]
        begin = even_slice(clips, world, own).start
        found = []
        for index in range(own * count, (own + 1) * count):
            place = even_slice(clips, world * count, index)
            part = batch.select(slice(place.start - begin, place.stop - begin))
            found.append(part if place.stop > place.start else padded_batch(batch.select(slice(0, 1))))
        return found


def separate_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give every gradient its own memory.

    Autograd may make the gradients of several parameters views of one tensor, for instance those of a stack
    that is summed. Accumulation and clipping in place would then change it once per parameter.
    """
    known: set[int] = set()
    for parameter in parameters:
        if parameter.grad is not None:
            if parameter.grad.data_ptr() in known:
                parameter.grad = parameter.grad.clone()
            known.add(parameter.grad.data_ptr())


def part_weights(
    model: Model, names: Sequence[str], parts: Sequence[Batch], distributed: bool = True
) -> Tensor:
    """The weights of the loss terms of parts of a batch in those of the whole batch, (parts, terms).

    Args:
        model: gives the number of elements that its terms are averaged over.
        names: the terms' names.
        parts: of this process.
        distributed: sum over the parts of the other processes too.
    """
    rows = []
    for part in parts:
        counts, annotated = model.loss_counts(part), part.annotated_frames().sum()
        row = [counts.get(name, annotated) for name in names]
        if not all(count is None or (isinstance(count, Tensor) and count.dim() == 0) for count in row):
            raise AvsbError(f"`loss_counts` of {type(model).__name__} must return scalar tensors or None.")
        rows.append(
            torch.stack(
                [
                    annotated.new_tensor(-1.0, dtype=torch.float64) if count is None else count.double()
                    for count in row
                ]
            )
        )
    own = torch.stack(rows)
    total = own.clamp(min=0).sum(dim=0)
    if distributed:
        total = all_reduce_sum(total)
    return torch.where(own < 0, 1.0, own / total.clamp(min=1e-9)).float()


def own_share(clips: int) -> slice:
    """The clips of a batch that this process reads; the first one if there are too few for all processes."""
    found = even_slice(clips, world_size(), rank())
    return found if found.stop > found.start else slice(0, 1)


def padded_batch(batch: Batch) -> Batch:
    """The batch with padded frames only."""
    nothing = torch.zeros_like(batch.valid_frames())
    return replace(batch, images=torch.zeros_like(batch.images), valid=nothing, annotated=nothing)
