"""Rerun a recorded experiment, and compare the results."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from avsbench_harness.engine.run import RunSpec
from avsbench_harness.errors import UsageError
from avsbench_harness.launch.execute import execute
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.results.record import Record, read_record
from avsbench_harness.weights import store

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
        method: folder of a method that is not installed; defaults to the record's method by name.

    Raises:
        UsageError: the record has no spec, is of a failed run, or is in ``out``.
    """
    then = read_record(file)
    if then.spec is None or then.status == "failed":
        raise UsageError(f"{file} cannot be rerun: it has no spec, or its run failed.")
    if (out / "results").resolve() == file.parent.resolve():
        raise UsageError(f"{file} is in {out / 'results'} itself; pass another folder with --out.")
    spec = RunSpec.parse(then.spec, str(file))
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(then.spec["recipe"]), encoding="utf-8")
        run = plan(
            Request(
                method=method or spec.method,
                backbone=spec.backbone,
                task=spec.task,
                variant=spec.variant,
                data=data,
                preset=spec.preset,
                recipe=recipe,
                weights=_weights_name(spec, "weights"),
                init=_weights_name(spec, "init"),
                seed=spec.seed,
                out=out,
                device=device,
            )
        )
        now = execute(run)
    verdicts = tuple(
        Verdict(entry.protocol, metric, then_value, _value(now, entry.protocol, entry.part, metric))
        for entry in then.scores
        for metric, then_value in entry.metrics.items()
    )
    return Reproduction(then, now, verdicts, tuple(_differences(then, now)))


def _weights_name(spec: RunSpec, name: Literal["weights", "init"]) -> str | None:
    """The argument by which the weights of a spec are found."""
    weights = getattr(spec, name)
    if weights is None:
        return None
    for entry in store.published():
        if weights.sha256 in (entry.sha256, entry.source_sha256):
            return entry.name
    return str(weights.file).split("/")[0]


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
        ("threads", theirs.threads, ours.threads),
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
