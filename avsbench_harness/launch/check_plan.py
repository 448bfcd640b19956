"""Checks of a planned run without its data: the selection metric, the network and its input size."""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from avsbench_harness.data.audio.separation import NO_SEPARATOR, SEPARATORS
from avsbench_harness.data.batch import Batch
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.system import System, build_system
from avsbench_harness.errors import AvsbError, UsageError, one_line, plugin_errors, unknown
from avsbench_harness.launch.run_scores import check_protocols
from avsbench_harness.nn.model import ParamGroup
from avsbench_harness.scoring import get_protocol
from avsbench_harness.scoring.protocol import Scorer
from avsbench_harness.tasks import Task
from avsbench_harness.weights.meta import MetaValues, on_meta

#: Largest network that is accepted, in parameters and in tensors; larger ones come from a mistyped option.
MAX_PARAMETERS, MAX_TENSORS = 50 * 10**9, 10_000
#: Largest tensor of the prediction of one clip that is accepted, in elements (256 GiB of float32).
MAX_ELEMENTS = 2**36
#: Largest tensor, in elements, of a prediction that is repeated on the CPU.
MAX_CONFIRMED = 2**23

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
    stopping = run.recipe.early_stopping
    if stopping is not None and stopping.metric is not None and stopping.metric not in names:
        raise unknown("metric of the recipe's early_stopping", stopping.metric, names)
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
    network = f"its network for {run.task.name} with {run.spec.backbone}"
    with plugin_errors(f"{run.method.name} cannot build {network}"):
        with _limited_size():
            system = on_meta(lambda: build_system(run, pretrained=False))
        _check_groups(system, system.param_groups(run.recipe), run.method.name)
    _check_input(run, system)
    return system


def _check_groups(system: System, groups: Sequence[ParamGroup], name: str) -> None:
    """Refuse learning-rate groups that name a parameter twice, or none of the network."""
    parameters = [id(parameter) for group in groups for parameter in group.params]
    if len(set(parameters)) < len(parameters):
        raise AvsbError(f"`param_groups` of {name} has a parameter in two groups, or twice in one.")
    if not {id(parameter) for parameter in system.model.parameters()} & set(parameters):
        raise AvsbError(f"`param_groups` of {name} has no parameter of the network, so nothing is trained.")
    if not all(math.isfinite(group.lr_scale) for group in groups):
        raise AvsbError(f"`param_groups` of {name} has a learning rate that is not finite.")


@contextmanager
def _limited_size() -> Iterator[None]:
    """Refuse a network with too many parameters while it is built."""
    parameters = tensors = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal parameters, tensors
        parameters += 0 if parameter is None else parameter.numel()
        tensors += 1
        if parameters > MAX_PARAMETERS or tensors > MAX_TENSORS:
            raise UsageError(
                f"The network has more than {MAX_PARAMETERS // 10**9} billion parameters or {MAX_TENSORS:,} "
                "tensors; check the options."
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _check_input(run: Run, system: System) -> None:
    """Predict one clip on the meta device, which computes shapes only.

    Errors of strange kinds may be due to the values that the meta device does not have. They are confirmed by
    a prediction on the CPU, unless that would be slow. Operators that the meta device lacks end the check.

    Raises:
        UsageError: the network cannot predict clips of the recipe's image size.
    """
    for frames in {run.recipe.frames or run.task.frames, run.task.frames}:
        try:
            with torch.no_grad(), MetaValues(MAX_ELEMENTS) as values:
                system.model.predict(_clip(run, frames, "meta"))
        except AvsbError:
            raise
        except NotImplementedError:
            return
        except Exception:
            if values.largest <= MAX_CONFIRMED:
                _confirm(run, frames)


def _confirm(run: Run, frames: int) -> None:
    """Raise a ``UsageError`` if a network with random weights cannot predict one clip."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            build_system(run, pretrained=False).model.predict(_clip(run, frames, "cpu"))
    except AvsbError:
        raise
    except Exception as error:
        side = run.recipe.image_size
        raise UsageError(
            f"{run.method.name} cannot predict {frames} frames of {side}x{side} pixels with these options "
            f"({type(error).__name__}: {one_line(error, 300)}, {_place(error)}); change the recipe's "
            "image_size or options."
        ) from error


def _clip(run: Run, frames: int, device: str) -> Batch:
    """One clip of the run's size, all zeros."""
    separator, side = run.recipe.audio.separator, run.recipe.image_size
    sources = () if separator == NO_SEPARATOR else (SEPARATORS[separator].sources,)
    images = torch.zeros(1, frames, 3, side, side, device=device)
    return Batch(images, torch.zeros(1, frames, *sources, 128, device=device), maskige=images)


def _place(error: BaseException) -> str:
    """File and line at which an exception was raised, of the code that called torch."""
    frames = traceback.extract_tb(error.__traceback__)
    library = str(Path(torch.__file__).parent)
    frame = [frame for frame in frames if not frame.filename.startswith(library)][-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}"
