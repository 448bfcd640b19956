"""Health report of a short training: gradients, updates, attention entropy and diagnostics."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from avsbench_harness.analysis.attention_entropy import AttentionMonitor, LayerEntropy
from avsbench_harness.analysis.updates import ModuleUpdates, UpdateMonitor
from avsbench_harness.console import progress_bar
from avsbench_harness.engine.interrupt import StopRequest, stop_request
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.system import set_determinism
from avsbench_harness.engine.train import Trainer
from avsbench_harness.engine.training_set import training_set
from avsbench_harness.errors import AvsbError, UsageError


@dataclass(frozen=True)
class StepFacts:
    """One observed step as a whole.

    Attributes:
        losses: ``loss`` and its terms.
        gradient_norm: of all parameters, before clipping.
        lr_factor: multiple of the recipe's learning rate.
        diagnostics: scalars that the model logs, such as the usage of a codebook.
    """

    losses: Mapping[str, float]
    gradient_norm: float
    lr_factor: float
    diagnostics: Mapping[str, float]


@dataclass(frozen=True)
class TrainingHealth:
    """The report of a short training.

    Attributes:
        run: the run whose first steps were made.
        steps: observed step, counted from 1 -> its facts.
        modules: gradients and updates of every module.
        attention: attention layer -> step -> entropy.
    """

    run: Run
    steps: Mapping[int, StepFacts]
    modules: Sequence[ModuleUpdates]
    attention: Mapping[str, Mapping[int, LayerEntropy]]

    @property
    def warnings(self) -> list[str]:
        """One sentence for every module that does not train as it should."""
        return [warning for module in self.modules for warning in module.warnings()]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "run": self.run.id,
            "spec": self.run.spec.model_dump(mode="json"),
            "steps": {str(number): asdict(facts) for number, facts in self.steps.items()},
            "modules": [{**asdict(module), "warnings": list(module.warnings())} for module in self.modules],
            "attention": {
                name: {str(number): asdict(entropy) for number, entropy in steps.items()}
                for name, steps in self.attention.items()
            },
            "warnings": self.warnings,
        }


def observed_steps(count: int) -> list[int]:
    """The steps that a report of ``count`` steps shows: powers of ten, and the last."""
    powers = [10**exponent for exponent in range(len(str(count)))]
    return sorted({*powers, count})


def training_health(run: Run, steps: int = 100, *, depth: int = 3) -> TrainingHealth:
    """Make the first steps of a run's training, and measure some of them.

    The steps are those of :class:`.train.Trainer`, of an uncompiled network. Nothing of the run is written.

    Args:
        run: the run; its recipe's schedule is that of the whole training.
        steps: number of steps; at most those of the run.
        depth: number of parts of the modules' paths, see :func:`.updates.module_of`.

    Raises:
        UsageError: the run predicts with given weights.
        AvsbError: a loss is not finite.
        Interrupted: a signal was received.
    """
    if run.spec.weights is not None:
        raise UsageError("A run with --weights is not trained; use --init to train from these weights.")
    recipe = run.recipe.model_copy(update={"compile": False})
    with tempfile.TemporaryDirectory() as folder, stop_request() as stop:
        eager = replace(run, spec=run.spec.model_copy(update={"recipe": recipe}), out=Path(folder))
        set_determinism(eager)
        trainer = Trainer(eager, training_set(eager, stop, ahead=False), stop)
        return _observe(run, trainer, min(steps, trainer.total), depth, stop)


def _observe(run: Run, trainer: Trainer, count: int, depth: int, stop: StopRequest) -> TrainingHealth:
    system, stepper = trainer.system, trainer.stepper
    networks: dict[str, nn.Module] = {"": system.model}
    if system.encoder is not None:
        networks["audio_encoder."] = system.encoder
    updates = UpdateMonitor(networks, stepper.optimizer, depth=depth)
    attention = AttentionMonitor(system.model)
    observed, found = observed_steps(count), {}
    steps = trainer.steps(count)
    with progress_bar() as progress:
        display = progress.add_task("steps", total=count, note="")
        for number in range(1, count + 1):
            with ExitStack() as stack:
                if number in observed:
                    stack.enter_context(updates.observe(number))
                    stack.enter_context(attention.observe(number))
                losses = {name: float(value) for name, value in next(steps).items()}
            progress.update(display, completed=number, note=f"loss {losses['loss']:.4g}")
            if not all(map(math.isfinite, losses.values())):
                terms = ", ".join(f"{name} {value}" for name, value in losses.items())
                raise AvsbError(f"The loss is not finite in step {number} ({terms}).")
            if number in observed:
                _undo_clipping(updates, trainer, number)
                group = stepper.optimizer.param_groups[0]
                factor = group["lr"] / group["initial_lr"]
                diagnostics = system.model.diagnostics()
                found[number] = StepFacts(losses, updates.total(number), factor, diagnostics)
            if stop.anywhere():
                raise stop.error(f"{number} of {count} steps were made; the report was not written.")
    return TrainingHealth(run, found, updates.updates(), attention.layers)


def _undo_clipping(updates: UpdateMonitor, trainer: Trainer, number: int) -> None:
    """Report gradients as they were before clipping, and without the scale of fp16."""
    clipped, norm = updates.total(number), trainer.stepper.gradient_norm
    if clipped and norm is not None:
        updates.rescale(number, float(norm) / clipped)
