"""The record: one JSON file for one scored run, from which every table is made.

Records are immutable: a run that has one is not scored again, and a leaderboard is a function of records
alone. Beside ``<run-id>.json`` lies ``<run-id>.clips.csv`` with the score of every clip, and for avss
``<run-id>.classes.csv`` with the sums of every clip and class.
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from avsbench_harness import __version__
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.files import atomic_write, read_json, write_json
from avsbench_harness.schema import Schema

if TYPE_CHECKING:
    import pandas as pd

    from avsbench_harness.scoring import Scores

RECORD_FORMAT: Literal[1] = 1


class ScoreEntry(Schema):
    """The scores of one submission under one protocol.

    Attributes:
        protocol: the definition, for instance ``object/1``.
        batch: clips per batch, where the protocol has batches.
        main: the metrics that tables show.
        metrics: metric -> value in [0, 1]; ``None`` where it is not defined.
        intervals: metric -> 95 % bootstrap interval over clips.
        clips: how many clips were scored.
        part: which: ``all``, or those that the ground truth's host publishes or keeps back.
    """

    protocol: str
    part: str = "all"
    batch: int | None = None
    main: list[str]
    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None]
    clips: int


class DataEntry(Schema):
    """What was predicted: data set, split, and the fingerprint of its ground truth, if it was scored."""

    name: str
    split: str
    synthetic: bool
    solution: str | None
    fingerprint: str | None = None


class CostEntry(Schema):
    """The size of the network: parameters, and 10^9 multiply-accumulates of a clip; audio encoder apart."""

    parameters: int
    gmacs: float


class TrainingEntry(Schema):
    """How the weights came about, at how many clips per second and with how much memory at its peak."""

    steps: int
    selected_step: int
    validations: list[dict[str, Any]]
    seconds: float
    weights_sha256: str
    clips_per_second: float | None = None
    memory_gib: float | None = None


class GitEntry(Schema):
    """The commit of the harness's own source tree, if it runs from one."""

    commit: str
    dirty: bool


class EnvironmentEntry(Schema):
    """What the numbers were computed with."""

    harness: str
    python: str
    platform: str
    packages: dict[str, str]
    device: str
    threads: int
    git: GitEntry | None


class Record(Schema):
    """One run that was scored, or that failed.

    Attributes:
        status: a failed run has no scores, and its record gives way when the run is tried again.
        reason: why it failed, one line.
        spec: the run's spec with everything that decided its result; ``None`` for a submission that
            was made elsewhere.
        spec_hash: SHA-256 of the spec.
        notes: what a reader must know, one sentence each.
    """

    format: Literal[1] = RECORD_FORMAT
    run_id: str
    created: str
    status: Literal["done", "failed"] = "done"
    reason: str | None = None
    method: str
    variant: str | None = None
    backbone: str | None = None
    preset: str | None = None
    task: str
    seed: int | None = None
    data: DataEntry
    scores: list[ScoreEntry]
    training: TrainingEntry | None = None
    cost: CostEntry | None = None
    submission_sha256: str | None
    environment: EnvironmentEntry
    spec: dict[str, Any] | None = None
    spec_hash: str | None = None
    notes: list[str] = Field([])

    @property
    def recipe_hash(self) -> str | None:
        """What tells recipes of one preset apart: the first digits of the hash of all but seed and data."""
        from avsbench_harness.files import sha256_json

        if self.spec is None:
            return None
        # Seeds of a training that starts from other seeds' weights belong together.
        decided = {key: value for key, value in self.spec.items() if key not in ("seed", "data", "init")}
        decided["from_weights"] = bool(self.spec.get("init"))
        # Where the values come from decides nothing, as in the spec's own hash.
        decided["recipe"] = {key: value for key, value in decided["recipe"].items() if key != "source"}
        return sha256_json(decided)[:8]

    def score(self, protocol: str, part: str = "all") -> ScoreEntry | None:
        """The scores of a part of the clips under one protocol, if it was scored so."""
        found = (entry for entry in self.scores if (entry.protocol, entry.part) == (protocol, part))
        return next(found, None)


def write_record(path: Path, record: Record, scores: Scores) -> None:
    """Write a scored run's record and its tables; only a failed run's record is ever replaced.

    Args:
        path: ``<run-id>.json``.
        record: what to write.
        scores: under the canonical protocol, for the tables.
    """
    if path.exists() and read_record(path).status == "done":
        raise UsageError(f"{path} exists, and records are immutable; remove it to score the run anew.")
    _write_table(clips_file(path), scores.per_clip)
    if scores.per_clip_class is not None:
        _write_table(classes_file(path), scores.per_clip_class)
    write_json(path, record.model_dump(mode="json"))


def write_failure(path: Path, record: Record) -> None:
    """Write a failed run's record, unless the run has been scored meanwhile."""
    if not (path.exists() and read_record(path).status == "done"):
        write_json(path, record.model_dump(mode="json"))


def clips_file(path: Path) -> Path:
    """The per-clip table beside a record."""
    return path.with_suffix(".clips.csv")


def classes_file(path: Path) -> Path:
    """The table of clips and classes beside a record of avss."""
    return path.with_suffix(".classes.csv")


def _write_table(path: Path, table: pd.DataFrame) -> None:
    with atomic_write(path) as file:
        table.to_csv(file, index=False, lineterminator="\n", float_format="%.17g")


def read_record(path: Path) -> Record:
    """Read one record.

    Raises:
        MissingDataError: there is no such file.
        UsageError: it is no record.
    """
    try:
        values = read_json(path)
    except OSError as error:
        raise MissingDataError(f"Cannot read {path}: {error.strerror}.") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} is not a record: it holds no keys and values.")
    return Record.parse(values, str(path))


def read_records(folder: Path) -> list[Record]:
    """All records in a folder, by run id."""
    return [read_record(path) for path in sorted(folder.glob("*.json"))]


def environment(device: str) -> EnvironmentEntry:
    """What this process computes with; ``device`` is what the run used."""
    return EnvironmentEntry(
        harness=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        packages=_versions(("torch", "torchvision", "timm", "numpy", "scikit-image", "resampy")),
        device=device,
        threads=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        git=_git(),
    )


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _versions(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git() -> GitEntry | None:
    """The commit of the tree that this file lies in, never of the caller's folder."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = _ask_git(root, "rev-parse", "HEAD")
        changes = _ask_git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return GitEntry(commit=commit, dirty=bool(changes))


def _ask_git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()
