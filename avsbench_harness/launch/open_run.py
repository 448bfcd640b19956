"""Open a trained run by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.data.avsbench.tree import VARIABLE, data_root
from avsbench_harness.engine.loops import DEFAULT_LOOPS
from avsbench_harness.engine.run import Run, RunSpec
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.files import read_json
from avsbench_harness.launch.datasets import choose_dataset, find_generated
from avsbench_harness.launch.device import choose_device
from avsbench_harness.method import get_method
from avsbench_harness.run_names import find_run
from avsbench_harness.tasks import get_task
from avsbench_harness.weights import store


def open_run(
    name: str,
    out: Path,
    *,
    data: Path | None = None,
    method: str | None = None,
) -> Run:
    """Open a trained run; on CUDA if available.

    Args:
        name: the run's folder, or its id under ``out`` or a unique prefix of it.
        out: the folder that holds ``runs/``.
        data: data root; defaults to ``AVSB_DATA_DIR``, then to the generated data set of the run.
        method: the method's folder, if it is not installed.

    Raises:
        UsageError: there is no such run, it is of another method, or it was trained on other data.
        MissingDataError: the weights of its frozen audio encoder are not on this machine.
    """
    return open_spec(find_run(name, out), lambda spec: _dataset(spec, data), method=method)


def open_spec(
    folder: Path,
    dataset: Callable[[RunSpec], Dataset],
    *,
    method: str | None = None,
    device: str | None = None,
) -> Run:
    """Open the run of a folder.

    Args:
        folder: the run's folder.
        dataset: opens the data set of a spec.
        method: the method's folder, if it is not installed.
        device: defaults to CUDA if available.

    Raises:
        UsageError: the run is of another method, or there is no such device.
        MissingDataError: the weights of its frozen audio encoder are not on this machine.
    """
    folder = folder.resolve()
    spec = RunSpec.parse(read_json(folder / "spec.json"), str(folder / "spec.json"))
    plugin = get_method(method or spec.method)
    if plugin.name != spec.method:
        raise UsageError(f"{folder.name} is a run of {spec.method}, not of {plugin.name}.")
    return Run(
        spec=spec,
        method=plugin,
        loops=DEFAULT_LOOPS,
        dataset=dataset(spec),
        out=folder.parents[1],
        weights=_audio_weights(spec),
        device=choose_device(device),
    )


def _dataset(spec: RunSpec, data: Path | None) -> Dataset:
    """The data set that the run was trained on."""
    task = get_task(spec.task)
    if data_root(data) is None:
        generated = find_generated(task, spec.data.fingerprint)
        if generated is None:
            raise MissingDataError(
                f"The run was trained on {spec.data.name}; pass --data ROOT, or set {VARIABLE}."
            )
        return generated
    dataset = choose_dataset(task, data)
    if dataset.fingerprint() != spec.data.fingerprint:
        raise UsageError(f"The run was not trained on {dataset.root}; pass --data with its data set.")
    return dataset


def _audio_weights(spec: RunSpec) -> dict[str, Path]:
    """The weights file of the run's frozen audio encoder; empty if the encoder was trained with the model."""
    if spec.audio.trained:
        return {}
    path = store.find(spec.audio.encoder)
    if path is None or store.file_hash(path) != spec.audio.weights:
        raise MissingDataError(
            f"The run uses {spec.audio.encoder} with weights of SHA-256 {spec.audio.weights}, which "
            f"the store does not have; `avsb weights add {spec.audio.encoder} FILE` adds them."
        )
    return {"audio": path}
