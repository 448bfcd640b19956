"""Trainings of the engine in float64, and optimisers and losses written out in elementary operations.

The engine trains a run of the recipe; the reference repeats it with its own copy of the network, on the same
batches, with numbers of the published code that the tests state. Both must agree in every loss and parameter.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.engine import train as engine
from avsbench_harness.engine.interrupt import stop_request
from avsbench_harness.engine.system import System
from avsbench_harness.engine.training_set import training_set
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.nn.audio_encoder import CompactAudioEncoder
from avsbench_harness.nn.model import Model
from avsbench_harness.nn.pretrained import add_weights
from avsbench_harness.tasks import get_task
from avsbench_harness.tracking.json_log import JsonLog

STEPS = 3

#: Means of the gradient and of its square, and the number of steps.
Moments: TypeAlias = tuple[Tensor, Tensor, int]

#: Changes of the released recipe for a short training of a small network; the audio encoder stays frozen.
SMALL = ("backbone.pretrained=false", "audio.encoder=compact", "image_size=64", "batch_size=2",
         f"iterations={STEPS}", "select.mode=last")  # fmt: skip


@dataclass
class Trajectory:
    """A training of the engine.

    Attributes:
        initial: the network before the first step.
        trained: the network after the last step.
        batches: of every step.
        losses: of every step.
    """

    initial: Model
    trained: Model
    batches: list[Batch] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


@contextmanager
def float64() -> Iterator[None]:
    """Make float64 the default type, also of ``Tensor.float``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "float", Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


def train(method: str, task: str, folder: Path, *assignments: str, variant: str = "released") -> Trajectory:
    """Train four clips by a published recipe ``full`` of a method, for three steps in float64.

    Args:
        method: name of the method.
        task: its task.
        folder: for the data, the cache and the run.
        assignments: overrides of the recipe besides :data:`SMALL`.
        variant: which published version of the method.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVSB_CACHE_DIR", str(folder / "cache"))
        torch.manual_seed(7)
        torch.save(CompactAudioEncoder().state_dict(), folder / "compact.pth")
        add_weights("compact", folder / "compact.pth")
        write_synthetic(folder / "data", get_task(task), (4, 1, 1), 0, kinds=2, jobs=1)
        run = plan(
            Request(method=method, backbone="resnet10t", task=task, data=folder / "data", out=folder,
                    variant=variant, preset="full", device="cpu", workers=0,
                    assignments=(*SMALL, *assignments))
        )  # fmt: skip
        assert run.spec.variant == variant
        assert not run.spec.audio.trained
        found = Trajectory(None, None)  # type: ignore[arg-type]
        _record(patch, found)
        dataset = training_set(run, ahead=False)
        with float64(), stop_request() as stop:
            trainer = engine.Trainer(run, dataset, stop)
            trainer.loop(JsonLog(folder / "log.jsonl", 0))
        found.trained = trainer.system.model
    return found


def _record(patch: pytest.MonkeyPatch, found: Trajectory) -> None:
    """Note the initial network, the batches and the losses of a training; batches become float64."""
    build, step = engine.build_system, engine.Trainer._step

    def build_and_note(run: Any, *, pretrained: bool) -> System:
        system = build(run, pretrained=pretrained)
        found.initial = copy.deepcopy(system.model)
        return system

    def convert(batch: Batch, device: str, non_blocking: bool = False) -> Batch:
        return batch._map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)

    def step_and_note(trainer: Any, batch: Batch, ids: list[str]) -> dict[str, Tensor]:
        terms = step(trainer, batch, ids)
        found.batches.append(batch)
        found.losses.append(terms["loss"].item())
        return terms

    patch.setattr(engine, "build_system", build_and_note)
    patch.setattr(engine.Trainer, "_step", step_and_note)
    patch.setattr(Batch, "to", convert)
    patch.setattr(System, "check_predict", lambda system, batch: None)  # predictions are to be float32


@dataclass(frozen=True)
class Optimizer:
    """Adam or AdamW of a published training.

    Attributes:
        lr: learning rate of a parameter, by its name and the step.
        decay: weight decay of a parameter, by its name.
        decoupled: AdamW instead of Adam.
        clip: maximum norm of all gradients together; infinite without clipping.
        frozen: whether a parameter is frozen, by its name and the step.
    """

    lr: Callable[[str, int], float]
    decay: Callable[[str], float]
    decoupled: bool
    clip: float = math.inf
    frozen: Callable[[str, int], bool] = lambda name, step: False


def repeat(
    trajectory: Trajectory, optimizer: Optimizer, loss: Callable[[Model, Batch], Tensor]
) -> tuple[Model, list[float]]:
    """Repeat a training with the reference optimiser and loss; returns the trained network and the losses."""
    model = copy.deepcopy(trajectory.initial).train()
    moments: dict[str, Moments] = {}
    losses = []
    with float64():
        for step, batch in enumerate(trajectory.batches):
            value = loss(model, batch)
            losses.append(value.item())
            trained = {
                name: parameter
                for name, parameter in model.named_parameters()
                if not optimizer.frozen(name, step)
            }
            found = torch.autograd.grad(value, list(trained.values()), allow_unused=True)
            gradients = {name: one for name, one in zip(trained, found, strict=True) if one is not None}
            norm = math.sqrt(sum((one * one).sum().item() for one in gradients.values()))
            factor = min(1.0, optimizer.clip / (norm + 1e-6))
            for name, gradient in gradients.items():
                lr, decay = optimizer.lr(name, step), optimizer.decay(name)
                state = moments.get(name)
                if optimizer.decoupled:
                    moments[name] = adamw(trained[name], factor * gradient, state, lr, decay)
                else:
                    moments[name] = adam(trained[name], factor * gradient, state, lr, decay)
    return model, losses


@torch.no_grad()
def adam(
    parameter: nn.Parameter, gradient: Tensor, state: Moments | None, lr: float, decay: float
) -> Moments:
    """One step of Adam (Kingma and Ba, 2015, algorithm 1), with the decay as part of the gradient."""
    first, second, count = state or (torch.zeros_like(parameter), torch.zeros_like(parameter), 0)
    gradient = gradient + decay * parameter
    first, second, count = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2, count + 1
    change = (first / (1 - 0.9**count)) / (torch.sqrt(second / (1 - 0.999**count)) + 1e-8)
    parameter.copy_(parameter - lr * change)
    return first, second, count


@torch.no_grad()
def adamw(
    parameter: nn.Parameter, gradient: Tensor, state: Moments | None, lr: float, decay: float
) -> Moments:
    """One step of AdamW (Loshchilov and Hutter, 2019, algorithm 2): the decay is not part of the gradient."""
    parameter.copy_((1 - lr * decay) * parameter)
    return adam(parameter, gradient, state, lr, 0.0)


def compare(
    trajectory: Trajectory,
    optimizer: Optimizer,
    loss: Callable[[Model, Batch], Tensor],
    *,
    tolerance: float = 1e-10,
) -> None:
    """Check that losses, parameters and batch statistics of a training and of its repetition agree."""
    assert len(trajectory.losses) == STEPS
    model, losses = repeat(trajectory, optimizer, loss)
    assert losses == pytest.approx(trajectory.losses, rel=tolerance)
    assert len(set(losses)) == STEPS
    wanted, initial = trajectory.trained.state_dict(), trajectory.initial.state_dict()
    states = (model.state_dict(), wanted)
    differences = {name: (states[0][name] - states[1][name]).abs().max().item() for name in wanted}
    worst = max(differences, key=lambda name: differences[name])
    assert differences[worst] < tolerance, f"{worst} differs by {differences[worst]:.3g}"
    assert all(value.dtype == torch.float64 for value in wanted.values() if value.is_floating_point())
    moved = [name for name, _ in model.named_parameters() if not torch.equal(initial[name], wanted[name])]
    assert len(moved) > 0.9 * len(list(model.parameters())), "most parameters must have moved"


def bce(probability: Tensor, truth: Tensor) -> Tensor:
    """Binary cross-entropy of probabilities, element by element."""
    return -(truth * probability.log() + (1 - truth) * (1 - probability).log())


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (...,h,w) bilinearly, with half-pixel centres and clamped borders: two matrix products."""
    rows, columns = (_weights(old, new) for old, new in zip(maps.shape[-2:], size, strict=True))
    return rows @ maps @ columns.T


def _weights(old: int, new: int) -> Tensor:
    """The matrix (new,old) of linear interpolation."""
    places = ((torch.arange(new, dtype=torch.float64) + 0.5) * old / new - 0.5).clamp(min=0)
    low = places.floor().long().clamp(max=old - 1)
    share = places - low
    weights = torch.zeros(new, old, dtype=torch.float64)
    weights[torch.arange(new), low] += 1 - share
    weights[torch.arange(new), (low + 1).clamp(max=old - 1)] += share
    return weights
