"""Checks of a planned run without its data: the selection metric, the network and its input size."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import numpy as np
import torch

from avsbench_harness.data.batch import Batch
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.system import System, build_system
from avsbench_harness.errors import AvsbError, UsageError, one_line, unknown
from avsbench_harness.launch.run_scores import check_protocols
from avsbench_harness.scoring import get_protocol
from avsbench_harness.scoring.protocol import Scorer
from avsbench_harness.tasks import Task
from avsbench_harness.weights.meta import on_meta

#: Largest network that is accepted, in parameters; larger ones come from a mistyped option.
MAX_PARAMETERS = 50 * 10**9

#: The networks that this process has checked.
_checked: set[str] = set()


def check_plan(run: Run) -> None:
    """Check what can be known of a run without data, so that it does not fail after hours.

    Raises:
        UsageError: the selection metric is unknown, an option is invalid, or the input size does not fit.
        AvsbError: the method's code raised another error.
    """
    protocol = run.recipe.select.protocol
    check_protocols(run.task, [protocol] if protocol else [])
    metric, names = run.recipe.metric(run.task), metric_names(run.task, protocol)
    if metric not in names:
        raise unknown("metric of the recipe's select", metric, names)
    recipe, spec = run.recipe, run.spec
    network = (
        spec.method, spec.code, spec.variant, spec.backbone, spec.task, spec.audio.model_dump(),
        recipe.image_size, recipe.frames, recipe.options, recipe.backbone.drop_path_rate,
    )  # fmt: skip
    key = json.dumps(network, sort_keys=True)
    if key not in _checked:
        meta_system(run)
        _checked.add(key)


def metric_names(task: Task, name: str | None = None) -> tuple[str, ...]:
    """The metrics of a validation of the task under a protocol; ``None``: the canonical one."""
    protocol = get_protocol(task.name, name)
    empty = np.zeros((1, 8, 8), np.uint8)
    scorer = Scorer(protocol, (8, 8))
    scorer.add(protocol.count(empty, empty))
    return tuple(scorer.scores(["empty"]).metrics)


def meta_system(run: Run) -> System:
    """Build the run's system on the meta device, and check its size and its input size.

    Raises:
        UsageError: an option is invalid, or the input size does not fit.
        AvsbError: the method's code raised another error.
    """
    try:
        system = on_meta(lambda: build_system(run, pretrained=False))
        system.param_groups(run.recipe)
    except AvsbError:
        raise
    except Exception as error:
        raise AvsbError(
            f"{run.method.name} cannot build its network for {run.task.name} with {run.spec.backbone}: "
            f"{type(error).__name__}: {one_line(error, 300)} ({_place(error)})."
        ) from error
    parameters = sum(parameter.numel() for parameter in system.parameters())
    if parameters > MAX_PARAMETERS:
        raise UsageError(f"The network has {parameters / 1e9:.0f} billion parameters; check the options.")
    _check_input(run, system)
    return system


def _check_input(run: Run, system: System) -> None:
    """Predict one clip on the meta device, as far as that is possible without values."""
    side, frames = run.recipe.image_size, run.recipe.frames or run.task.frames
    images = torch.empty(1, frames, 3, side, side, device="meta")
    batch = Batch(images, torch.empty(1, frames, 128, device="meta"), maskige=torch.empty_like(images))
    try:
        with torch.no_grad():
            system.eval().model.predict(batch)
    except AvsbError:
        raise
    except Exception:  # most networks read values, which the meta device does not have
        return


def _place(error: BaseException) -> str:
    """File and line at which an exception was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}"
