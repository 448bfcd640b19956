"""Opening a trained model for prediction: by its run, its weights, or its method and backbone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.engine.load_weights import read_verified
from avsbench_harness.engine.predictor import Predictor
from avsbench_harness.errors import AvsbError, MissingDataError, UsageError
from avsbench_harness.files import read_json, sha256_file
from avsbench_harness.launch.open_run import open_spec
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.method import get_method
from avsbench_harness.run_names import match_run, run_ids
from avsbench_harness.tasks import Task, get_task
from avsbench_harness.weights import store
from avsbench_harness.weights.sources import find_weights
from avsbench_harness.weights.tensors import load_tensors

#: Ways to get weights, for messages.
HOW_TO_GET = (
    "Weights come from a training: `avsb demo` trains two small networks in a few minutes and `avsb run` any "
    "method; `avsb weights import METHOD FILE --task TASK --backbone BACKBONE` imports those that a method's "
    "authors published. There are no general-purpose weights for audio-visual segmentation."
)


@dataclass(frozen=True)
class _Candidate:
    """A trained model on this machine, for messages and for METHOD:BACKBONE."""

    name: str
    method: str
    backbone: str
    task: str


def load(
    model: str | Path,
    *,
    task: str | None = None,
    out: str | Path = Path(),
    method: str | None = None,
    device: str | None = None,
) -> Predictor:
    """Open a trained model with its preprocessing.

    Args:
        model: the id of a run, a unique prefix of it, or its folder; a weights file in a run's folder; the
            id of stored published weights; or METHOD:BACKBONE, if one run or one set of published weights is
            of both.
        task: ``s4``, ``ms3`` or ``avss``, where several models have that name.
        out: the folder that holds ``runs/``.
        method: folder of the method, if it is not installed.
        device: ``cpu``, ``cuda`` or ``cuda:N``; defaults to CUDA if available.

    Raises:
        UsageError: there is no such model, or several.
        MissingDataError: the model is not trained yet, or weights are missing on this machine.
    """
    name, folder = str(model), Path(out)
    if ":" in name and not Path(name).exists():
        name = _named(name, folder, task)
    own = _run_of_file(Path(name)) or match_run(name, folder)
    if own is not None:
        run = open_spec(own, lambda spec: _no_data(get_task(spec.task)), method=method, device=device)
        _check_task(name, run.task, task)
        weights = Path(name) if Path(name).is_file() else run.weights_file
        if not weights.is_file():
            raise MissingDataError(f"{own} has no weights.safetensors: that run is not trained yet.")
        return Predictor(run, load_tensors(weights), sha256_file(weights))
    return _published(name, folder, task, method, device)


def available(out: Path) -> str:
    """A sentence on the models that can be loaded, and on how to get some."""
    names = [candidate.name for candidate in _candidates(out)]
    listed = f"On this machine: {', '.join(names[:20])}. " if names else ""
    return f"{listed}{HOW_TO_GET}"


def _published(name: str, out: Path, task: str | None, method: str | None, device: str | None) -> Predictor:
    """The predictor of published weights in the store, or of a file that was imported."""
    if not Path(name).exists() and not any(entry.name.startswith(name) for entry in store.published()):
        raise MissingDataError(f"There is no run and there are no weights called '{name}'. {available(out)}")
    source = find_weights(name, out, {} if task is None else {"task": get_task(task).name})
    if not source.facts:
        raise UsageError(
            f"{name} does not say for which network it is; pass the folder of its run, with spec.json."
        )
    _check_task(name, get_task(source.facts["task"]), task)
    request = Request(
        method=method or source.facts["method"],
        backbone=source.facts["backbone"],
        task=source.facts["task"],
        variant=source.facts["variant"],
        data=Path(),  # not opened
        weights=name,
        out=out,
        device=device,
        workers=0,
    )
    run = plan(request, opened=lambda of, root, singles: (_no_data(get_task(of)), ""))
    assert run.spec.weights is not None  # the request has weights
    state = read_verified(run.weights["weights"], run.spec.weights)
    return Predictor(run, state, run.spec.weights.sha256)


def _named(name: str, out: Path, task: str | None) -> str:
    """The one run or set of published weights of METHOD:BACKBONE."""
    asked, _, backbone = name.partition(":")
    method = get_method(asked).name
    found = [
        candidate
        for candidate in _candidates(out)
        if (candidate.method, candidate.backbone) == (method, backbone)
        and (task is None or candidate.task == get_task(task).name)
    ]
    if not found:
        of = "" if task is None else f" for {task}"
        raise MissingDataError(f"There are no weights of {method} with {backbone}{of}. {available(out)}")
    if len(found) > 1:
        names = ", ".join(candidate.name for candidate in found)
        raise UsageError(f"'{name}' matches {names}; name one of them, or pass the task.")
    return found[0].name


def _candidates(out: Path) -> Iterator[_Candidate]:
    """The trained runs under ``out``, and the published weights in the store."""
    for name in run_ids(out):
        folder = out / "runs" / name
        if (folder / "weights.safetensors").is_file():
            try:
                values = read_json(folder / "spec.json")
                yield _Candidate(name, *(str(values[key]) for key in ("method", "backbone", "task")))
            except (AvsbError, OSError, ValueError, KeyError, TypeError):
                continue  # a damaged spec is reported when its run is named
    for entry in store.published():
        yield _Candidate(entry.name, entry.method, entry.backbone, entry.task)


def _run_of_file(path: Path) -> Path | None:
    """The folder of the run whose weights a file holds."""
    return path.parent if path.is_file() and (path.parent / "spec.json").is_file() else None


def _check_task(name: str, found: Task, asked: str | None) -> None:
    if asked is not None and get_task(asked) != found:
        raise UsageError(f"{name} is for {found.name}, not for {asked}.")


def _no_data(task: Task) -> Dataset:
    """A data set without clips, for a run that reads none."""
    return Dataset(task, Path(), Path(), Path(), False, ())
