"""Rerun a recorded experiment, and compare the results."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from avsbench_harness.engine.run import Run, RunSpec
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.launch.execute import execute
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.method import methods
from avsbench_harness.results.record import Record, is_run_id, read_record
from avsbench_harness.weights import store
from avsbench_harness.weights.spec import BackboneWeightsSpec, WeightsSpec

logger = logging.getLogger(__name__)

#: Largest difference of a metric in [0, 1] that counts as reproduced.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Verdict:
    """One metric in the record and in the rerun."""

    protocol: str
    metric: str
    then: float | None
    now: float | None

    @property
    def word(self) -> Literal["same bits", "within tolerance", "different"]:
        """The comparison of the two values, within :data:`TOLERANCE`."""
        if self.then == self.now:
            return "same bits"
        if self.then is None or self.now is None or abs(self.then - self.now) > TOLERANCE:
            return "different"
        return "within tolerance"


@dataclass(frozen=True)
class Reproduction:
    """A record and its rerun.

    Attributes:
        then, now: the two records.
        verdicts: one per metric.
        differences: in spec, data, weights, predictions and environment, one sentence each.
    """

    then: Record
    now: Record
    verdicts: tuple[Verdict, ...]
    differences: tuple[str, ...]


def reproduce(
    file: Path, out: Path, data: Path | None = None, device: str | None = None, method: str | None = None
) -> Reproduction:
    """Rerun a record's spec in this environment.

    Args:
        file: the record.
        out: folder for the rerun's ``runs/``, ``submissions/`` and ``results/``; not the record's own.
        data: data root, see ``Request``.
        device: see ``Request``.
        method: folder of a method that is not installed; defaults to the installed method of that name. A
            record is data: a path that it names is never imported.

    Raises:
        UsageError: the record has no spec, is of a failed run, is in ``out``, or its method is not installed.
        MissingDataError: weights that the run used are not available.
    """
    then = read_record(file)
    if then.spec is None or then.status == "failed":
        raise UsageError(f"{file} cannot be rerun: it has no spec, or its run failed.")
    if (out / "results").resolve() == file.parent.resolve():
        raise UsageError(f"{file} is in {out / 'results'} itself; pass another folder with --out.")
    spec = RunSpec.parse(then.spec, str(file))
    if method is None and spec.method not in methods():
        raise UsageError(
            f"{file} is of the method {spec.method!r}, which is not installed; pass its folder with --method."
        )
    where = (out, file.parent.parent)
    run = plan(replace(recorded_request(spec, where, method), data=data, out=out, device=device))
    _check_rerun(spec, run.spec, file)
    _warn_of_threads(then, run)
    now = execute(run)
    verdicts = tuple(
        Verdict(entry.protocol, metric, then_value, _value(now, entry.protocol, entry.part, metric))
        for entry in then.scores
        for metric, then_value in entry.metrics.items()
    )
    return Reproduction(then, now, verdicts, tuple(_differences(then, now)))


def recorded_request(spec: RunSpec, folders: Sequence[Path], method: str | None = None) -> Request:
    """The request of a run that was made, without its data root, output folder and device.

    Args:
        spec: the run's spec.
        folders: folders with ``runs/``, searched for weights that the run started from.
        method: folder of the method, if it is not installed.

    Raises:
        MissingDataError: weights that the run started from are not available.
    """
    return Request(
        method=method or spec.method,
        backbone=spec.backbone,
        task=spec.task,
        variant=spec.variant,
        preset=spec.preset,
        recorded=spec.recipe.to_dict(),
        weights=_find_weights(spec.weights, folders),
        init=_find_weights(spec.init, folders),
        seed=spec.seed,
    )


def _find_weights(weights: WeightsSpec | None, folders: Sequence[Path]) -> str | None:
    """The stored weights or the weights file of a run that has the recorded hash.

    Args:
        weights: entry of the record's spec.
        folders: folders with ``runs/``. The file name of a record selects a run there; it is never a path.

    Raises:
        MissingDataError: no such weights are available.
    """
    if weights is None:
        return None
    for entry in store.published():
        if weights.sha256 in (entry.sha256, entry.source_sha256):
            return entry.name
    name = weights.file.split("/")[0]
    for folder in folders if is_run_id(name) else ():
        path = folder / "runs" / name / "weights.safetensors"
        if path.is_file() and sha256_file(path) == weights.sha256:
            return str(path)
    raise MissingDataError(
        f"The record's run used the weights {weights.file!r} (SHA-256 {weights.sha256[:12]}), which are "
        "neither in the store nor in runs/ next to the record; add them, because a rerun without them "
        "would be another experiment."
    )


def _check_rerun(then: RunSpec, now: RunSpec, file: Path) -> None:
    """Refuse a rerun that would use other weights or another method than the record.

    Raises:
        UsageError: ``--method`` is another method.
        MissingDataError: the weights of the audio encoder or of the backbone differ or are not available.
    """
    if now.method != then.method:
        raise UsageError(f"{file} is of the method {then.method!r}, but --method is {now.method!r}.")
    pairs = (
        ("audio encoder", then.audio.weights, now.audio.weights),
        ("backbone", _digest(then.backbone_weights), _digest(now.backbone_weights)),
    )
    for name, recorded, found in pairs:
        if recorded is not None and recorded != found:
            raise MissingDataError(
                f"{file}: the weights of the {name} with SHA-256 {recorded[:12]} are not available here; add "
                "them with `avsb weights add`."
            )


def _digest(weights: BackboneWeightsSpec | None) -> str | None:
    return None if weights is None else weights.sha256


def _warn_of_threads(then: Record, run: Run) -> None:
    """Log a different number of threads, on which the order of sums on the CPU depends."""
    threads = torch.get_num_threads()
    recorded = then.environment.threads
    if (run.device, then.environment.device) == ("cpu", "cpu") and threads != recorded:
        logger.warning(
            f"The record was made with {recorded} threads, and this process has {threads}: results on the "
            f"CPU are the same bits only with the same number. Set OMP_NUM_THREADS={recorded} to use it."
        )


def _value(record: Record, protocol: str, part: str, metric: str) -> float | None:
    entry = record.score(protocol, part)
    return None if entry is None else entry.metrics.get(metric)


def _differences(then: Record, now: Record) -> Iterator[str]:
    ours, theirs = now.environment, then.environment
    pairs = [
        ("spec", then.spec_hash, now.spec_hash),
        ("data", then.data.fingerprint, now.data.fingerprint),
        ("ground truth", then.data.solution, now.data.solution),
        ("trained weights", _weights(then), _weights(now)),
        ("predictions", then.submission_sha256, now.submission_sha256),
        ("harness", theirs.harness, ours.harness),
        ("commit", theirs.git.commit if theirs.git else None, ours.git.commit if ours.git else None),
        ("python", theirs.python, ours.python),
        ("platform", theirs.platform, ours.platform),
        ("device", theirs.device, ours.device),
        ("threads (results on the CPU depend on them)", theirs.threads, ours.threads),
    ]
    pairs += [
        (name, theirs.packages.get(name), ours.packages.get(name))
        for name in sorted(set(theirs.packages) | set(ours.packages))
    ]
    for name, one, two in pairs:
        if one != two:
            yield f"{name}: {_short(one)} then, {_short(two)} now"


def _weights(record: Record) -> str | None:
    return record.training.weights_sha256 if record.training else None


def _short(value: object) -> str:
    return "n/a" if value is None else str(value)[:40]
