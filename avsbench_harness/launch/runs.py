"""The runs in a folder: their state, differences and removal. Imports no torch."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from avsbench_harness.engine.heartbeat import CLAIM, is_worked_on, read_heartbeat, take_claim
from avsbench_harness.errors import AvsbError, Busy, UsageError, one_line
from avsbench_harness.files import read_json
from avsbench_harness.results.recipe_changes import change_text, spec_changes
from avsbench_harness.results.record import Record, read_record
from avsbench_harness.run_names import find_run, run_ids
from avsbench_harness.tracking.json_log import read_log

#: ``trained``: without scores yet; ``stopped``: interrupted, rerunning its command resumes it.
RunState: TypeAlias = Literal["running", "done", "trained", "stopped", "failed"]


@dataclass(frozen=True)
class RunFacts:
    """One run.

    Attributes:
        run: its id.
        state: see :data:`RunState`.
        reason: of a failure, one line.
        task, method, variant, backbone, data, preset, seed: of its spec.
        changes: the recipe's changes to its preset; ``None`` if the preset is not available here.
        metric: the main metric, J or mIoU.
        score: its value on the test split; ``None`` without a record.
        validation: its best value on the validation split so far.
        step, total: training steps done, and of the whole training; ``None`` if unknown.
        age: seconds since its files changed.
        size: bytes of its folder and submissions.
    """

    run: str
    state: RunState
    reason: str
    task: str
    method: str
    variant: str
    backbone: str
    data: str
    preset: str
    seed: int
    changes: list[str] | None
    metric: str
    score: float | None
    validation: float | None
    step: int | None
    total: int | None
    age: float
    size: int

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class RunFiles:
    """Where the files of a run are.

    Args:
        out: the folder that holds ``runs/``.
        folder: of the run.
    """

    out: Path
    folder: Path

    @property
    def id(self) -> str:
        """The run's id."""
        return self.folder.name

    @property
    def record(self) -> Path:
        """The record of its scores on the test split."""
        return self.out / "results" / f"{self.id}.json"

    @property
    def submissions(self) -> list[Path]:
        """Its submissions, of all splits, sizes and conditions."""
        folder = self.out / "submissions"
        return sorted([*folder.glob(f"{self.id}.npz"), *folder.glob(f"{self.id}-*.npz")])

    @classmethod
    def find(cls, name: str, out: Path) -> RunFiles:
        """The files of the run that a user names, see :func:`.find_run`."""
        folder = find_run(name, out)
        if folder.parent == out / "runs":
            return cls(out, folder)
        return cls(folder.resolve().parents[1], folder.resolve())


def list_runs(out: Path) -> list[RunFacts]:
    """All runs in ``out/runs``, the latest first; those whose spec cannot be read are failed."""
    found = [run_facts(RunFiles(out, out / "runs" / name)) for name in run_ids(out)]
    return sorted(found, key=lambda one: one.age)


def read_spec(files: RunFiles) -> dict[str, Any]:
    """The run's spec as JSON values, of this or an older version of the harness.

    Raises:
        UsageError: it is not the spec of a run.
    """
    path = files.folder / "spec.json"
    values = read_json(path)
    if not (isinstance(values, dict) and isinstance(values.get("recipe"), dict)):
        raise UsageError(f"{path} is not the spec of a run.")
    return values


def run_facts(files: RunFiles) -> RunFacts:
    """The facts of one run."""
    record, problem = _record(files)
    try:
        spec = read_spec(files)
    except (AvsbError, OSError) as error:
        spec, problem = {"recipe": {}}, one_line(error)
    state, reason = _state(files, record)
    metric = spec["recipe"].get("select", {}).get("metric") or ("mIoU" if spec.get("task") == "avss" else "J")
    values = [line["val"].get(metric) for line in read_log(files.folder / "log.jsonl") if "val" in line]
    known = [value for value in values if value is not None]
    changes = spec_changes(spec)
    score = None
    if record is not None and record.scores:
        metric = record.scores[0].main[0]
        score = record.scores[0].metrics.get(metric)
    beat = read_heartbeat(files.folder)
    data = spec.get("data")
    return RunFacts(
        run=files.id,
        state="failed" if problem else state,
        reason=problem or reason,
        task=str(spec.get("task", "")),
        method=str(spec.get("method", "")),
        variant=str(spec.get("variant", "")),
        backbone=str(spec.get("backbone", "")),
        data=str(data.get("name", "")) if isinstance(data, Mapping) else "",
        preset=str(spec.get("preset", "")),
        seed=int(spec.get("seed", 0)),
        changes=None if changes is None else [change_text(key, value) for key, value in changes.items()],
        metric=metric,
        score=score,
        validation=max(known, default=None),
        step=None if beat is None or not beat.total else beat.step,
        total=None if beat is None else beat.total,
        age=max(0.0, time.time() - _changed(files.folder)),
        size=sum(path.stat().st_size for path in _all_files(files)),
    )


def _record(files: RunFiles) -> tuple[Record | None, str]:
    """The run's record if there is one, or why it cannot be read."""
    try:
        return (read_record(files.record), "") if files.record.is_file() else (None, "")
    except AvsbError as error:
        return None, one_line(error)


def _state(files: RunFiles, record: Record | None) -> tuple[RunState, str]:
    if record is not None and record.status == "done":
        return "done", ""
    if is_worked_on(files.folder):
        return "running", ""
    if (files.folder / "training.json").is_file() and record is None:
        return "trained", ""
    beat = read_heartbeat(files.folder)
    reason = (record.reason if record is not None else None) or (beat.reason if beat is not None else "")
    return ("failed", reason) if reason or record is not None else ("stopped", "")


def _all_files(files: RunFiles) -> Iterator[Path]:
    yield from (path for path in files.folder.rglob("*") if path.is_file())
    yield from files.submissions


def _changed(folder: Path) -> float:
    """Time of the last change of a file in a run's folder, seconds since 1970."""
    return max(path.stat().st_mtime for path in [folder, *folder.iterdir()] if path.exists())


@dataclass(frozen=True)
class Difference:
    """One value in which two runs differ; ``None`` where a run lacks it.

    Attributes:
        group: ``spec``, ``environment`` or ``scores``.
        key: dotted.
        a, b: the values.
    """

    group: str
    key: str
    a: Any
    b: Any


def diff_runs(a: RunFiles, b: RunFiles) -> list[Difference]:
    """All differences of two runs in spec, environment and scores; records without one are left out."""
    found = list(_differences("spec", read_spec(a), read_spec(b)))
    first, second = _record(a)[0], _record(b)[0]
    if first is not None and second is not None:
        one, two = (record.environment.model_dump(mode="json") for record in (first, second))
        found += _differences("environment", one, two)
        found += _differences("scores", _scores(first), _scores(second))
    return found


def _scores(record: Record) -> dict[str, Any]:
    return {
        f"{entry.protocol}{'' if entry.part == 'all' else f' {entry.part}'}": dict(entry.metrics)
        for entry in record.scores
    }


def _differences(group: str, one: object, two: object, prefix: str = "") -> Iterator[Difference]:
    if isinstance(one, Mapping) or isinstance(two, Mapping):
        first, second = (value if isinstance(value, Mapping) else {} for value in (one, two))
        for key in sorted({*first, *second}):
            name = f"{prefix}.{key}" if prefix else str(key)
            if name != "recipe.source":  # text about the origin of the values
                yield from _differences(group, first.get(key), second.get(key), name)
    elif one != two:
        yield Difference(group, prefix, one, two)


@dataclass(frozen=True)
class Removal:
    """The files of a run that would be removed, and the consequences, one sentence each."""

    files: RunFiles
    paths: list[Path]
    size: int
    losses: list[str]


def plan_removal(files: RunFiles) -> Removal:
    """List what the removal of a run deletes and what else needs it; records stay.

    Raises:
        Busy: a process works on the run.
    """
    if is_worked_on(files.folder):
        raise Busy(f"A process works on {files.id}; stop it before you remove the run.")
    record = _record(files)[0]
    losses = []
    if (files.folder / "checkpoints").is_dir():
        losses.append("The interrupted training cannot be resumed.")
    if (files.folder / "training.json").is_file():
        losses.append("The trained weights are lost; predictions need a new training.")
    if record is not None and record.status == "done":
        losses.append(
            f"{files.record} stays, but loses its submission and its log: the scores cannot be computed "
            "again from predictions, and its page has neither clips nor curves."
        )
    others = sorted(_started_from(files))
    if others:
        losses.append(f"{', '.join(others)} started from its weights and cannot be reproduced without them.")
    size = sum(path.stat().st_size for path in _all_files(files))
    return Removal(files, [files.folder, *files.submissions], size, losses)


def remove(removal: Removal) -> None:
    """Delete the files of a run.

    Raises:
        Busy: a process has started to work on the run.
    """
    files = removal.files
    claim = take_claim(files.folder, CLAIM)
    if claim is None:
        raise Busy(f"A process works on {files.id}; stop it before you remove the run.")
    try:
        (files.folder / "spec.json").unlink(missing_ok=True)  # what a kill leaves behind is no run any more
        for path in removal.paths[1:]:
            path.unlink(missing_ok=True)
    finally:
        claim.release()
    shutil.rmtree(files.folder)


def _started_from(files: RunFiles) -> Iterator[str]:
    """The ids of other runs in the same folder that use this run's weights."""
    for name in run_ids(files.out):
        other = RunFiles(files.out, files.out / "runs" / name)
        try:
            spec = read_spec(other)
        except (AvsbError, OSError):
            continue
        used = [spec.get(key) for key in ("init", "weights")]
        if any(
            isinstance(one, Mapping) and str(one.get("file", "")).startswith(f"{files.id}/") for one in used
        ):
            yield name
