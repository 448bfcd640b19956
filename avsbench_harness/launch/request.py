"""Resolve a user's request into a run with a complete spec."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from avsbench_harness import __version__
from avsbench_harness.data.audio.separation import NO_SEPARATOR, check_separator
from avsbench_harness.data.avsbench.layout import Dataset, open_dataset
from avsbench_harness.data.avsbench.processed import processed_fingerprint
from avsbench_harness.data.avsbench.tree import VARIABLE, data_root
from avsbench_harness.data.maskige import check_source
from avsbench_harness.data.propagate import check_supplement
from avsbench_harness.engine.loops import DEFAULT_LOOPS
from avsbench_harness.engine.run import DataSpec, Run, RunSpec
from avsbench_harness.errors import UsageError, plugin_errors
from avsbench_harness.launch.datasets import choose_dataset
from avsbench_harness.launch.defaults import MINI, MINI_BACKBONE, default_preset
from avsbench_harness.launch.device import default_workers, run_device
from avsbench_harness.launch.run_scores import check_protocols
from avsbench_harness.launch.weight_files import WeightFiles, find_files
from avsbench_harness.method import GROUP, Method, check_task, check_variant, get_method, is_folder
from avsbench_harness.recipe.resolve import resolve
from avsbench_harness.recipe.schema import MAX_SEED, Recipe
from avsbench_harness.tasks import S4, Task, get_task
from avsbench_harness.tracking.trackers import check_trackers
from avsbench_harness.weights import backbone_names
from avsbench_harness.weights.sources import Source, check_facts, find_weights

logger = logging.getLogger(__name__)

#: Returns a data set and its fingerprint, see :func:`open_data`.
OpenData: TypeAlias = Callable[[str, Path | None, bool], tuple[Dataset, str]]


@dataclass(frozen=True)
class Request:
    """The options of a run; ``None`` selects the default.

    Attributes:
        method: name, alias or folder.
        backbone: ``r50``, ``pvt``, ``swin_t`` or a timm name.
        task: ``s4``, ``ms3`` or ``avss``.
        variant: ``released`` or ``paper``; defaults to the method's first.
        data: data root, ``mini`` or ``synthetic``; defaults to ``AVSB_DATA_DIR``, then to ``mini``.
        preset: of the method's recipes; defaults to that of :func:`.defaults.default_preset`.
        recorded: the recipe of a run, which replaces the values of the preset.
        recipe: a YAML file with overrides of the preset.
        assignments: further overrides, ``key=value``.
        pretrained: whether the backbone starts from ImageNet weights; defaults to the recipe's choice.
        weights: weights to predict with instead of training, see ``weights.sources``.
        init: weights that training starts from, named in the same way.
        seed: random seed.
        out: folder for ``runs/``, ``submissions/`` and ``results/``.
        device: ``cpu``, ``cuda``, ``cuda:N``; defaults to CUDA if available.
        workers: DataLoader worker processes; defaults to a number by the cores.
        log: names of trackers, see :mod:`avsbench_harness.tracking.trackers`.
    """

    method: str
    backbone: str
    task: str = "s4"
    variant: str | None = None
    data: Path | None = None
    preset: str | None = None
    recorded: Mapping[str, Any] | None = None
    recipe: Path | None = None
    assignments: Sequence[str] = ()
    pretrained: bool | None = None
    weights: str | None = None
    init: str | None = None
    seed: int = 0
    out: Path = Path()
    device: str | None = None
    workers: int | None = None
    log: Sequence[str] = ()

    def arguments(self) -> list[str]:
        """The request as command-line options of ``avsb run``."""
        given = {
            "--method": self.method,
            "--backbone": self.backbone,
            "--task": self.task,
            "--variant": self.variant,
            "--data": self.data,
            "--preset": self.preset,
            "--recipe": self.recipe,
            "--weights": self.weights,
            "--init": self.init,
            "--seed": self.seed,
            "--out": self.out,
            "--device": self.device,
            "--workers": self.workers,
        }
        options = [text for name, value in given.items() if value is not None for text in (name, str(value))]
        options += [text for assignment in self.assignments for text in ("--set", assignment)]
        options += [text for name in self.log for text in ("--log", name)]
        if self.pretrained is not None:
            options.append("--pretrained" if self.pretrained else "--no-pretrained")
        return options


def open_data(task: str, data: Path | None, singles: bool) -> tuple[Dataset, str]:
    """Open the data set of :func:`choose_dataset`; returns it with its fingerprint."""
    dataset = choose_dataset(get_task(task), data, singles=singles)
    return dataset, dataset.fingerprint()


def plan(
    request: Request,
    *,
    check: bool = True,
    opened: OpenData = open_data,
) -> Run:
    """Resolve a request; invalid values and missing files are errors here, before any computation.

    Missing weights are reported before the data set is opened, which may have to be composed first.

    Args:
        request: the request.
        check: also choose the device, build the network on the meta device to check its options and input
            size, compare given weights with it, and make the maskiges and pseudo-masks of a synthetic set;
            without, the run can be looked up but not executed.
        opened: replaces :func:`open_data`, to open a data set once for many plans.
    """
    trackers = check_trackers(request.log)
    data_root(request.data)  # a missing data root is the first error of every command
    method = get_method(request.method)
    task = check_task(method, request.task)
    variant = check_variant(method, request.variant, task.name)
    backbone_names.resolve(request.backbone)
    if not 0 <= request.seed <= MAX_SEED:
        raise UsageError(f"--seed must be 0 or more and at most 2^63, got {request.seed}.")
    source = _find_weights(request, method, task, variant)
    if request.preset is not None:
        preset = request.preset
    elif source is not None and request.weights is not None:
        preset = source.preset
        if source.recipe is not None and request.recorded is None:
            request = replace(request, recorded={**source.recipe, "init_skip": []})
    else:
        preset = default_preset(method, request.backbone, request.data)
    recipe = _recipe(request, method, task, variant, preset)
    device = run_device(request.device, recipe) if check else request.device or "cpu"
    weights = find_files(recipe, request.backbone, source, trained=request.weights is None)
    dataset, fingerprint = opened(task.name, request.data, recipe.supplement is not None)
    spec = _spec(request, method, task, variant, preset, recipe, dataset, fingerprint, source, weights)
    run = Run(
        spec=spec,
        method=method,
        dataset=dataset,
        loops=DEFAULT_LOOPS,
        out=request.out,
        weights=weights.files,
        device=device,
        workers=default_workers() if request.workers is None else request.workers,
        trackers=trackers,
    )
    if check:
        _check(run, request, source)
    return run


def _check(run: Run, request: Request, source: Source | None) -> None:
    """Check the network and whether given weights fit, and complete a generated data set; imports torch."""
    from avsbench_harness.engine.load_weights import check_fit
    from avsbench_harness.launch.check_plan import check_plan, meta_system
    from avsbench_harness.launch.generated_inputs import make_generated_inputs

    check_plan(run)
    if source is not None:
        asked = str(request.weights or request.init)
        init = request.init is not None
        check_fit(meta_system(run), source, asked, init=init, skip=run.recipe.init_skip)
    make_generated_inputs(run)


def warning(run: Run, data: Path | None = None) -> str | None:
    """A warning for runs whose scores are not those of AVSBench, or that only test that everything works.

    ``data`` is the requested data root.
    """
    real = f"pass --data ROOT, or set {VARIABLE}, with AVSBench on disk"
    if run.dataset.synthetic and data_root(data) is not None:
        real = f"{run.dataset.root} is not AVSBench; {real}"
    elif run.dataset.synthetic:
        real = f"For a real run {real}"
    smoke = run.spec.preset == "smoke"
    if run.dataset.composed is not None:
        name = run.dataset.composed.name
        if smoke:
            return (
                f"SMOKE RUN on {name}: it only tests that everything works. To measure the method, pass "
                f"--preset {MINI} --backbone {MINI_BACKBONE}."
            )
        return f"{name}: composed pictures; the scores do not compare with those on AVSBench."
    if run.dataset.synthetic and smoke:
        return f"SMOKE RUN on SYNTHETIC data: it only tests that everything works. {real}."
    if run.dataset.synthetic:
        return f"SYNTHETIC data: the scores do not measure performance on AVSBench. {real}."
    if smoke:
        return "SMOKE RUN: this recipe is too short to measure the method; pass --preset full."
    return None


def _find_weights(request: Request, method: Method, task: Task, variant: str) -> Source | None:
    """The weights of ``--weights`` or ``--init``, if given."""
    if request.weights is not None and request.init is not None:
        raise UsageError(
            "--init starts a training from weights, --weights skips the training; pass one of them."
        )
    asked = request.weights or request.init
    if asked is None:
        return None
    if request.pretrained:
        raise UsageError("--pretrained has no effect: the given weights include the backbone.")
    wanted = {"method": method.name, "variant": variant, "task": task.name, "backbone": request.backbone}
    source = find_weights(asked, request.out, wanted)
    if request.init is not None:  # from other tasks and variants too, if the shapes match
        wanted = {"method": method.name, "backbone": request.backbone}
    check_facts(source, wanted, asked)
    return source


def _recipe(request: Request, method: Method, task: Task, variant: str, preset: str) -> Recipe:
    recipe = resolve(
        method,
        task,
        request.backbone,
        variant=variant,
        preset=preset,
        recorded=request.recorded,
        file=request.recipe,
        assignments=request.assignments,
    )
    if recipe.maskige is not None:
        recipe = _maskiges(method, recipe, recipe.maskige)
    _check_separator(method, recipe)
    if recipe.frames is not None and recipe.frames >= task.frames:
        raise UsageError(
            f"The recipe's frames is {recipe.frames}, but clips of {task.name} have {task.frames} at most; "
            "leave it out to train on all of them."
        )
    _check_training_data(method, task, recipe)
    check_protocols(task, recipe.protocols)
    if recipe.init_skip and request.init is None:
        raise UsageError("The recipe's init_skip has no effect without --init; leave it out.")
    given = request.weights is not None or request.init is not None
    pretrained = False if given else request.pretrained
    if pretrained is not None:
        changed = recipe.backbone.model_copy(update={"pretrained": pretrained})
        recipe = recipe.model_copy(update={"backbone": changed})
    return recipe


def _supplement(dataset: Dataset, recipe: Recipe) -> str | None:
    """The fingerprint of the S4 clips that are added to the training of another task."""
    if recipe.supplement is None or dataset.task is S4:
        return None
    return open_dataset(dataset.root, S4).fingerprint()


def _maskiges(method: Method, recipe: Recipe, source: str) -> Recipe:
    """The recipe, without maskiges if the options disable them; a method without maskiges is an error."""
    check_source(source)
    with plugin_errors(f"`uses_maskiges` of {method.name} failed"):
        possible, used = method.uses_maskiges({}), method.uses_maskiges(recipe.options)
    if not possible:
        raise UsageError(f"The recipe's maskige is '{source}', but {method.name} takes none; leave it out.")
    return recipe if used else recipe.model_copy(update={"maskige": None})


def _check_separator(method: Method, recipe: Recipe) -> None:
    """Refuse an unknown separator, and one that the method does not use."""
    name = recipe.audio.separator
    check_separator(name)
    if name != NO_SEPARATOR and not method.separated_audio:
        raise UsageError(
            f"The recipe's audio.separator is '{name}', but {method.name} takes no separated sources; "
            "leave it out."
        )


def _check_training_data(method: Method, task: Task, recipe: Recipe) -> None:
    """Refuse pseudo-masks that the task cannot use, and ignored pixels that the method does not support."""
    if recipe.supplement is not None:
        check_supplement(recipe.supplement, task)
        if task is not S4 and recipe.maskige is not None:
            raise UsageError(
                "The S4 clips of the recipe's supplement have no maskiges; leave supplement or maskige out."
            )
    if recipe.augment.outside == "ignore" and not method.ignored_pixels:
        raise UsageError(
            f"The recipe's augment.outside is 'ignore', but {method.name} does not support ignored pixels; "
            "leave it out."
        )


def _spec(
    request: Request,
    method: Method,
    task: Task,
    variant: str,
    preset: str,
    recipe: Recipe,
    dataset: Dataset,
    fingerprint: str,
    source: Source | None,
    files: WeightFiles,
) -> RunSpec:
    weights = source if request.weights is not None else None
    init = source if request.weights is None else None
    return RunSpec(
        method=method.name,
        variant=variant,
        backbone=request.backbone,
        task=task.name,
        seed=request.seed,
        preset=preset,
        data=DataSpec(
            name=dataset.name,
            fingerprint=fingerprint,
            synthetic=dataset.synthetic,
            supplement=_supplement(dataset, recipe),
            processed=processed_fingerprint(dataset) if recipe.processed_frames else None,
        ),
        audio=files.audio,
        backbone_weights=files.backbone,
        recipe=recipe,
        code=_code(request.method, method),
        weights=None if weights is None else weights.spec,
        init=None if init is None else init.spec,
    )


def _code(asked: str, method: Method) -> str:
    """The version of the method's code: of its package, or the hash of its folder."""
    if not is_folder(asked):
        return _package(method.name)
    digest = hashlib.sha256()
    for path in sorted(method.folder.rglob("*.py")):
        digest.update(path.relative_to(method.folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"folder {digest.hexdigest()}"


@functools.cache
def _package(name: str) -> str:
    """Name and version of the package of an installed method."""
    for point in importlib.metadata.entry_points(group=GROUP, name=name):
        if point.dist is not None:
            return f"{point.dist.name} {point.dist.version}"
    return f"avsbench-harness {__version__}"
