"""From what a user asks for to a run whose spec leaves nothing open."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from avsbench_harness import __version__
from avsbench_harness.data.audio.separation import NO_SEPARATOR, check_separator
from avsbench_harness.data.avsbench.layout import Dataset, open_dataset
from avsbench_harness.data.avsbench.tree import VARIABLE, data_root
from avsbench_harness.data.maskige import SEGMENTERS, check_source, make_maskiges, missing_maskiges
from avsbench_harness.data.propagate import (
    FLOWS,
    check_supplement,
    missing_pseudo_masks,
    propagate,
)
from avsbench_harness.distributed import local_device, world_size
from avsbench_harness.engine.acceleration import check_compiler
from avsbench_harness.engine.load_weights import check_fit
from avsbench_harness.engine.loops import DEFAULT_LOOPS
from avsbench_harness.engine.run import AudioSpec, DataSpec, Run, RunSpec
from avsbench_harness.engine.system import build_system
from avsbench_harness.errors import MissingDataError, UsageError, unknown
from avsbench_harness.files import sha256_file
from avsbench_harness.launch.default_dataset import choose_dataset
from avsbench_harness.launch.execute import check_protocols
from avsbench_harness.method import GROUP, Method, check_task, check_variant, get_method, is_folder
from avsbench_harness.nn.backbone import find_pretrained
from avsbench_harness.recipe.resolve import resolve
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.tasks import S4, SPLITS, Task
from avsbench_harness.weights import store, timm_names
from avsbench_harness.weights.meta import on_meta
from avsbench_harness.weights.sources import Source, check_facts, find_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What a user asks for; ``None`` is "decide for me".

    Attributes:
        method: name, alias or folder.
        backbone: ``r50``, ``pvt``, ``swin_t`` or a timm name.
        task: ``s4``, ``ms3`` or ``avss``.
        variant: ``released`` or ``paper``.
        data: data root; else ``AVSB_DATA_DIR``; else a small synthetic set.
        preset: which of the method's recipes; else ``full``, or ``smoke`` on the stand-in set.
        recipe: a YAML file laid on the preset.
        assignments: ``key=value`` laid on that.
        pretrained: ImageNet weights for the backbone; else as the recipe says.
        checkpoint: weights to predict with instead of training, see ``launch.sources``.
        init: weights that training starts from, named the same way.
        seed: of everything random.
        out: folder for ``runs/``, ``submissions/`` and ``results/``.
        device: ``cpu``, ``cuda``, ``cuda:N``; else CUDA where there is one.
        workers: processes that decode data; else by the number of cores.
    """

    method: str
    backbone: str
    task: str = "s4"
    variant: str | None = None
    data: Path | None = None
    preset: str | None = None
    recipe: Path | None = None
    assignments: Sequence[str] = ()
    pretrained: bool | None = None
    checkpoint: str | None = None
    init: str | None = None
    seed: int = 0
    out: Path = Path()
    device: str | None = None
    workers: int | None = None

    def arguments(self) -> list[str]:
        """The same request as options of ``avsb run``."""
        given = {
            "--method": self.method,
            "--backbone": self.backbone,
            "--task": self.task,
            "--variant": self.variant,
            "--data": self.data,
            "--preset": self.preset,
            "--recipe": self.recipe,
            "--from-checkpoint": self.checkpoint,
            "--init": self.init,
            "--seed": self.seed,
            "--out": self.out,
            "--device": self.device,
            "--workers": self.workers,
        }
        options = [text for name, value in given.items() if value is not None for text in (name, str(value))]
        options += [text for assignment in self.assignments for text in ("--set", assignment)]
        if self.pretrained is not None:
            options.append("--pretrained" if self.pretrained else "--no-pretrained")
        return options


def plan(request: Request) -> Run:
    """Resolve a request; whatever is unknown or missing is an error here, before anything is computed."""
    method = get_method(request.method)
    task = check_task(method, request.task)
    variant = check_variant(method, request.variant)
    timm_names.resolve(request.backbone)
    if request.seed < 0:
        raise UsageError(f"--seed must be 0 or more, got {request.seed}.")
    root = data_root(request.data)
    taken = _taken(request, method, task, variant)
    preset = request.preset or _preset(root, taken if request.checkpoint else None)
    recipe = _recipe(request, method, task, variant, preset)
    device = local_device(choose_device(request.device))
    if recipe.compile:
        check_compiler(device)
    dataset = choose_dataset(task, request.data, singles=recipe.supplement is not None)
    _make_synthetic_maskiges(dataset, recipe)
    _make_synthetic_pseudo_masks(dataset, recipe)
    spec, files = _spec(request, method, task, variant, preset, recipe, dataset, taken)
    run = Run(
        spec=spec,
        method=method,
        dataset=dataset,
        loops=DEFAULT_LOOPS,
        out=request.out,
        weights=files,
        device=device,
        workers=_workers() if request.workers is None else request.workers,
    )
    if taken is not None:
        system = on_meta(lambda: build_system(run, pretrained=False))
        asked = str(request.checkpoint or request.init)
        check_fit(system, taken, asked, init=request.init is not None, skip=recipe.init_skip)
    return run


def _make_synthetic_maskiges(dataset: Dataset, recipe: Recipe) -> None:
    """Make the maskiges of a synthetic set on the way; for real data that is a command of its own."""
    if not (dataset.synthetic and recipe.maskige in SEGMENTERS):
        return
    clips = [clip for split in SPLITS for clip in dataset.clips(split)]
    if missing_maskiges(dataset, clips, recipe.maskige):
        logger.info(f"Making the maskiges of {len(clips)} clips.")
        make_maskiges(clips, recipe.maskige, jobs=1 if len(clips) < 100 else None)


def _make_synthetic_pseudo_masks(dataset: Dataset, recipe: Recipe) -> None:
    """Carry the first masks of a synthetic set on, on the way; for real data that is a command of its own."""
    if not (dataset.synthetic and recipe.supplement in FLOWS):
        return
    single = dataset if dataset.task is S4 else open_dataset(dataset.root, S4)
    clips = single.clips("train")
    if missing_pseudo_masks(single, clips, recipe.supplement):
        logger.info(f"Making the pseudo-masks of {len(clips)} clips.")
        propagate(single, recipe.supplement, jobs=1 if len(clips) < 100 else None)


def warning(run: Run) -> str | None:
    """The line that tells a run that says nothing about its method from the real thing, if it is one."""
    real = f"pass --data ROOT, or set {VARIABLE}, with AVSBench on disk"
    if run.dataset.synthetic and run.spec.preset == "smoke":
        return (
            f"SMOKE RUN on SYNTHETIC data: it shows that everything works, no more. For the real one {real}."
        )
    if run.dataset.synthetic:
        return f"SYNTHETIC data: the scores say nothing about AVSBench. For the real one {real}."
    if run.spec.preset == "smoke":
        return "SMOKE RUN: this recipe is too short to say anything about the method; pass --preset full."
    return None


def _taken(request: Request, method: Method, task: Task, variant: str) -> Source | None:
    """The weights that the run takes over, if it does."""
    if request.checkpoint is not None and request.init is not None:
        raise UsageError(
            "--init starts a training, and --from-checkpoint does without one; pass one of them."
        )
    asked = request.checkpoint or request.init
    if asked is None:
        return None
    if request.pretrained:
        raise UsageError("--pretrained has no effect: the weights that the run takes over have a backbone.")
    wanted = {"method": method.name, "variant": variant, "task": task.name, "backbone": request.backbone}
    source = find_weights(asked, request.out, wanted)
    if request.init is not None:  # from other tasks and variants too, as far as the shapes fit
        wanted = {"method": method.name, "backbone": request.backbone}
    check_facts(source, wanted, asked)
    return source


def _preset(root: Path | None, checkpoint: Source | None) -> str:
    """The preset of a request that names none."""
    if checkpoint is not None:
        return checkpoint.preset
    return "smoke" if root is None else "full"


def _recipe(request: Request, method: Method, task: Task, variant: str, preset: str) -> Recipe:
    recipe = resolve(
        method,
        task,
        request.backbone,
        variant=variant,
        preset=preset,
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
    takes_over = request.checkpoint is not None or request.init is not None
    pretrained = False if takes_over else request.pretrained
    if pretrained is not None:
        changed = recipe.backbone.model_copy(update={"pretrained": pretrained})
        recipe = recipe.model_copy(update={"backbone": changed})
    return recipe


def _supplement(dataset: Dataset, recipe: Recipe) -> str | None:
    """The fingerprint of the S4 clips that join the training of another task."""
    if recipe.supplement is None or dataset.task is S4:
        return None
    return open_dataset(dataset.root, S4).fingerprint()


def _maskiges(method: Method, recipe: Recipe, source: str) -> Recipe:
    """The recipe without a source of maskiges where its options switch them off; others are refused."""
    check_source(source)
    if not method.sees_maskiges({}):
        raise UsageError(f"The recipe's maskige is '{source}', but {method.name} takes none; leave it out.")
    return recipe if method.sees_maskiges(recipe.options) else recipe.model_copy(update={"maskige": None})


def _check_separator(method: Method, recipe: Recipe) -> None:
    """Refuse a separator that is not known, or that the method does nothing with."""
    name = recipe.audio.separator
    check_separator(name)
    if name != NO_SEPARATOR and not method.separated_audio:
        raise UsageError(
            f"The recipe's audio.separator is '{name}', but {method.name} takes no separated sources; "
            "leave it out."
        )


def _check_training_data(method: Method, task: Task, recipe: Recipe) -> None:
    """Refuse pseudo-masks that the task has no use for, and ignored pixels that the method does not know."""
    if recipe.supplement is not None:
        check_supplement(recipe.supplement, task)
        if task is not S4 and recipe.maskige is not None:
            raise UsageError(
                "The S4 clips of the recipe's supplement have no maskiges; leave one of the two out."
            )
    if recipe.augment.outside == "ignore" and not method.ignored_pixels:
        raise UsageError(
            f"The recipe's augment.outside is 'ignore', but {method.name} knows no ignored pixels; "
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
    taken: Source | None,
) -> tuple[RunSpec, dict[str, Path]]:
    checkpoint = taken if request.checkpoint is not None else None
    audio, files = _audio(recipe) if checkpoint is None else _audio_of(checkpoint, recipe)
    if taken is not None:
        files["init" if checkpoint is None else "checkpoint"] = taken.path
    backbone_hash = None
    if recipe.backbone.pretrained:
        files["backbone"] = find_pretrained(request.backbone)
        backbone_hash = sha256_file(files["backbone"])
    spec = RunSpec(
        method=method.name,
        variant=variant,
        backbone=request.backbone,
        task=task.name,
        seed=request.seed,
        preset=preset,
        data=DataSpec(
            name=dataset.name,
            fingerprint=dataset.fingerprint(),
            synthetic=dataset.synthetic,
            supplement=_supplement(dataset, recipe),
        ),
        audio=audio,
        backbone_weights=backbone_hash,
        recipe=recipe,
        code=_code(request.method, method),
        checkpoint=None if checkpoint is None else checkpoint.spec,
        init=None if taken is None or checkpoint is not None else taken.spec,
    )
    return spec, files


def _audio(recipe: Recipe) -> tuple[AudioSpec, dict[str, Path]]:
    """The audio encoder: frozen if the recipe says so and its weights are there, else trained."""
    name = recipe.audio.encoder
    path = store.find(name)
    trained = path is None or not recipe.audio.freeze
    digest = sha256_file(path) if path is not None else None
    return AudioSpec(encoder=name, weights=digest, trained=trained), {} if path is None else {"audio": path}


def _audio_of(checkpoint: Source, recipe: Recipe) -> tuple[AudioSpec, dict[str, Path]]:
    """The audio encoder beside weights that are not trained here: among them, or frozen from the store.

    Raises:
        MissingDataError: it is not among them, and the store does not have it.
    """
    name = recipe.audio.encoder
    if checkpoint.has_encoder:
        return AudioSpec(encoder=name, weights=None, trained=True), {}
    path = store.find(name)
    if path is None:
        raise MissingDataError(
            f"{checkpoint.spec.file} comes without its audio encoder, {name}, and the store has no weights "
            f"of that; `avsb weights add {name} FILE` adds them."
        )
    return AudioSpec(encoder=name, weights=sha256_file(path), trained=False), {"audio": path}


def _code(asked: str, method: Method) -> str:
    """What version of the method's code runs: a package's, or the hash of a folder that is being written."""
    if not is_folder(asked):
        for point in importlib.metadata.entry_points(group=GROUP, name=method.name):
            if point.dist is not None:
                return f"{point.dist.name} {point.dist.version}"
        return f"avsbench-harness {__version__}"
    digest = hashlib.sha256()
    for path in sorted(method.folder.rglob("*.py")):
        digest.update(path.relative_to(method.folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"folder {digest.hexdigest()}"


def choose_device(asked: str | None) -> str:
    """The device asked for, if it is there; else CUDA where there is one."""
    if asked is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise unknown("device", asked, ("cpu", "cuda")) from None
    here = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= here:
        raise UsageError(f"There is no device {asked} here ({here} CUDA devices); pass --device cpu.")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"Runs go to cpu or cuda, not to {asked}.")
    return asked


def _workers() -> int:
    """Decoding processes: none on a small machine, where they would only take cores from training."""
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
    return 0 if cores <= 2 else min(8, cores // 2)
