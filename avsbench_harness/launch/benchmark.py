"""Measure the speed and memory of networks on this machine, and write the measurements."""

from __future__ import annotations

import logging
import platform
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch

from avsbench_harness.bench.measure import (
    Multiples,
    Timing,
    measure,
    system_step,
    waiting_share,
)
from avsbench_harness.bench.memory import run_batch, training_peak
from avsbench_harness.console import counter
from avsbench_harness.data.avsbench.tree import data_root
from avsbench_harness.data.batch import Batch
from avsbench_harness.data.loader import load
from avsbench_harness.data.random_batch import supervision
from avsbench_harness.engine.inputs import training_epochs
from avsbench_harness.engine.out_of_memory import does_not_fit, free_cached, largest_batch
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.system import build_system, set_determinism
from avsbench_harness.engine.training_set import training_set
from avsbench_harness.errors import AvsbError, MissingDataError, UsageError, unknown
from avsbench_harness.launch.datasets import choose_dataset
from avsbench_harness.launch.device import choose_device
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.method import check_task, check_variant, get_method, methods
from avsbench_harness.nn.backbone import build_backbone
from avsbench_harness.nn.cost import model_cost
from avsbench_harness.recipe.resolve import resolve, split_assignment
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.results.measurement import (
    BatchEntry,
    DeviceEntry,
    LoadingEntry,
    Measurement,
    SpeedEntry,
    Spread,
    write_measurement,
)
from avsbench_harness.results.record import CostEntry, environment, now
from avsbench_harness.tasks import get_task
from avsbench_harness.weights import backbone_names

logger = logging.getLogger(__name__)


PRECISIONS: tuple[str, ...] = get_args(Recipe.model_fields["precision"].annotation)

#: Minimum number of batches over which waiting for data is measured.
LOADED_BATCHES = 4


@dataclass(frozen=True)
class BenchRequest:
    """The options of a benchmark; ``None`` selects the default, for recipe keys that of the ``full`` recipe.

    Attributes:
        method: name, alias or folder; ``None``: every installed method.
        backbones: backbone names.
        task: ``s4``, ``ms3`` or ``avss``.
        variant: ``released`` or ``paper``; ``None``: each method's first.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        batch: clips per batch.
        assignments: further recipe overrides, ``key=value``.
        repeats: timed repetitions after one warm-up.
        data: data root; defaults to ``AVSB_DATA_DIR``, then to a small synthetic set.
        workers: DataLoader worker processes.
        out: folder that holds ``results/``.
    """

    method: str | None
    backbones: tuple[str, ...] = ("r50",)
    task: str = "s4"
    variant: str | None = None
    device: str | None = None
    precision: str | None = None
    batch: int | None = None
    assignments: tuple[str, ...] = ()
    repeats: int = 5
    data: Path | None = None
    workers: int | None = None
    out: Path = Path()


@dataclass(frozen=True)
class Result:
    """The measurement of one network and its file, or the reason why there is none.

    Attributes:
        fault: whether measuring failed; a method without that task or variant is no failure.
    """

    method: str
    backbone: str
    measurement: Measurement | None = None
    path: Path | None = None
    reason: str = ""
    fault: bool = False


def bench(request: BenchRequest) -> Iterator[Result]:
    """Measure networks one by one; each measurement is written at once.

    An error is raised if the method was requested by name, otherwise it becomes that method's result.

    Raises:
        UsageError: an option is invalid; checked before the first measurement.
        AvsbError: a batch does not fit, or a method cannot be loaded.
    """
    task = get_task(request.task)
    choose_device(request.device)
    if request.precision is not None and request.precision not in PRECISIONS:
        raise unknown("precision", request.precision, PRECISIONS)
    if not request.backbones:
        raise UsageError("--backbone names no backbone; pass for example --backbone r50,pvt.")
    for backbone in request.backbones:
        backbone_names.resolve(backbone)
    if request.method is not None:
        check_variant(get_method(request.method), request.variant, task.name)
    choose_dataset(task, request.data)
    names = list(methods()) if request.method is None else [request.method]
    for name in names:
        for backbone in request.backbones:
            try:
                if request.method is None and (reason := _left_out(name, request)):
                    yield Result(name, backbone, reason=reason)
                    continue
                logger.info(f"Measuring {name} with {backbone}.")
                found = measure_network(name, backbone, request)
            except AvsbError as error:
                if request.method is not None:
                    raise
                yield Result(name, backbone, reason=str(error), fault=True)
                continue
            path = write_measurement(request.out / "results", found)
            yield Result(found.method, backbone, found, path)


def measure_network(method: str, backbone: str, request: BenchRequest) -> Measurement:
    """Measure one network of one method, with random weights."""
    run = plan(_run_request(method, backbone, request))
    if not run.dataset.clips("train"):
        raise MissingDataError(f"The train split of {run.dataset.root} has no clips.")
    set_determinism(run)
    alone = without_encoder(run)
    try:
        memory = training_peak(alone, method)
        cost, times = _times(alone, request.repeats)
        free_cached()
        loading = _loading(run)
    except torch.OutOfMemoryError as error:
        raise _does_not_fit(error, run) from None
    finally:
        free_cached()
    recipe, clips = run.recipe, run.recipe.batch_size
    return Measurement(
        created=now(),
        method=run.spec.method,
        variant=run.spec.variant,
        backbone=backbone,
        task=run.task.name,
        code=run.spec.code,
        options=recipe.options,
        changes=dict(map(split_assignment, request.assignments)),
        device=device_entry(run.device),
        precision=recipe.precision,
        batch=BatchEntry(
            clips=clips,
            frames=recipe.frames or run.task.frames,
            image_size=recipe.image_size,
            annotated=supervision(run.task),
        ),
        repeats=request.repeats,
        cost=cost,
        forward=_speed(times.forward, times.forward_multiples, clips),
        training=_speed(times.step, times.step_multiples, clips),
        memory_gib=memory or None,
        loading=loading,
        environment=environment(run.device),
    )


def without_encoder(run: Run) -> Run:
    """The run with a frozen audio encoder, whose embeddings are precomputed."""
    audio = run.spec.audio.model_copy(update={"trained": False})
    return replace(run, spec=run.spec.model_copy(update={"audio": audio}))


def device_entry(device: str) -> DeviceEntry:
    """The kind and name of a device."""
    if device.startswith("cuda"):
        return DeviceEntry(kind="cuda", name=torch.cuda.get_device_name(device))
    return DeviceEntry(kind="cpu", name=_cpu_name(), threads=torch.get_num_threads())


def _left_out(name: str, request: BenchRequest) -> str:
    """The reason why a method has no such network, else empty."""
    method = get_method(name)
    try:
        check_task(method, request.task)
        check_variant(method, request.variant, request.task)
    except UsageError as error:
        return str(error)
    return ""


def _run_request(method: str, backbone: str, request: BenchRequest) -> Request:
    """The request of the training run to measure."""
    found = get_method(method)
    task = check_task(found, request.task)
    variant = check_variant(found, request.variant, task.name)
    changes = []
    if data_root(request.data) is None and resolve(found, task, backbone, variant=variant).maskige:
        changes.append("maskige=felzenszwalb")  # the default synthetic set has no published maskiges
    changes += request.assignments
    if request.precision is not None:
        changes.append(f"precision={request.precision}")
    if request.batch is not None:
        changes.append(f"batch_size={request.batch}")
    return Request(
        method=method,
        backbone=backbone,
        task=request.task,
        variant=request.variant,
        data=request.data,
        preset="full",
        assignments=changes,
        pretrained=False,
        out=request.out,
        device=request.device,
        workers=request.workers,
    )


def _times(run: Run, repeats: int) -> tuple[CostEntry, Multiples]:
    """The network's cost and timings."""
    model = build_system(run, pretrained=False).model.to(run.device)
    cost = model_cost(model, run.recipe.image_size)
    bare = build_backbone(run.spec.backbone, drop_path_rate=run.recipe.backbone.drop_path_rate)
    times = measure(model, bare.to(run.device), run.recipe, run_batch(run), repeats=repeats)
    return CostEntry(parameters=cost.parameters, gmacs=cost.gmacs), times


def _speed(timing: Timing, multiples: tuple[float, ...], clips: int) -> SpeedEntry:
    rates = [clips / seconds for seconds in timing.elapsed]
    return SpeedEntry(clips_per_second=Spread.of(rates), multiple=Spread.of(multiples))


def _loading(run: Run) -> LoadingEntry:
    """Waiting for data in a short training on the run's data set."""
    dataset = training_set(run, ahead=False)
    # Each worker prefetches two batches, which are not counted.
    warm_up = 1 + 2 * run.workers
    counted = max(LOADED_BATCHES, 2 * run.workers)
    epochs = training_epochs(run, len(dataset))
    order = [epochs.batch(step) for step in range(warm_up + counted)]
    step = system_step(run)
    with counter("loading", len(order), refresh=False) as advance:

        def counted_step(batch: Batch) -> None:
            step(batch)
            advance(1)

        waiting = waiting_share(
            load(dataset, order, workers=run.workers, device=run.device),
            counted_step,
            run.device,
            warm_up=warm_up,
        )
    return LoadingEntry(
        waiting=waiting,
        data=run.dataset.name,
        synthetic=run.dataset.synthetic,
        workers=run.workers,
        batches=counted,
    )


def _does_not_fit(error: torch.OutOfMemoryError, run: Run) -> AvsbError:
    """The error for a network that runs out of memory in training."""
    traceback.clear_frames(error.__traceback__)
    free_cached()
    clips = run.recipe.batch_size
    try:
        step = system_step(run)
    except torch.OutOfMemoryError:
        return does_not_fit(run, clips, 0, "--batch ")
    fits = largest_batch(lambda count: step(run_batch(run, count)), clips)
    return does_not_fit(run, clips, fits, "--batch ")


def _cpu_name() -> str:
    """The model name of the processor, else its architecture."""
    try:
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        facts = []
    names = [line.split(":", 1)[1].strip() for line in facts if line.startswith("model name")]
    return names[0] if names and names[0] else platform.processor() or platform.machine()
