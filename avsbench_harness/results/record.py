"""The record: one JSON file for one scored run, from which every table is made.

Records are immutable: a run that has one is not scored again, and a leaderboard is a function of records
alone. Beside ``<run-id>.json`` lies ``<run-id>.clips.csv`` with the score of every clip.
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
from avsbench_harness.errors import UsageError
from avsbench_harness.files import atomic_write, read_json, write_json
from avsbench_harness.schema import Schema

if TYPE_CHECKING:
    import pandas as pd

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
    """

    protocol: str
    batch: int | None = None
    main: list[str]
    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None]
    clips: int


class DataEntry(Schema):
    """What was predicted: data set, split, and the fingerprint of its ground truth."""

    name: str
    split: str
    synthetic: bool
    solution: str
    fingerprint: str | None = None


class TrainingEntry(Schema):
    """How the weights came about."""

    steps: int
    selected_step: int
    validations: list[dict[str, Any]]
    seconds: float
    weights_sha256: str


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
    """One scored run.

    Attributes:
        spec: the run's spec with everything that decided its result; ``None`` for a submission that
            was made elsewhere.
        spec_hash: SHA-256 of the spec.
        notes: what a reader must know, one sentence each.
    """

    format: Literal[1] = RECORD_FORMAT
    run_id: str
    created: str
    method: str
    variant: str | None = None
    backbone: str | None = None
    preset: str | None = None
    task: str
    seed: int | None = None
    data: DataEntry
    scores: list[ScoreEntry]
    training: TrainingEntry | None = None
    submission_sha256: str
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
        decided = {key: value for key, value in self.spec.items() if key not in ("seed", "data")}
        return sha256_json(decided)[:8]

    def score(self, protocol: str) -> ScoreEntry | None:
        """The scores under one protocol, if it was scored so."""
        return next((entry for entry in self.scores if entry.protocol == protocol), None)


def write_record(path: Path, record: Record, per_clip: pd.DataFrame) -> None:
    """Write a record and its per-clip table; an existing record is never overwritten."""
    if path.exists():
        raise UsageError(f"{path} exists, and records are immutable; remove it to score the run anew.")
    with atomic_write(clips_file(path)) as file:
        per_clip.to_csv(file, index=False, lineterminator="\n", float_format="%.17g")
    write_json(path, record.model_dump(mode="json"))


def clips_file(path: Path) -> Path:
    """The per-clip table beside a record."""
    return path.with_suffix(".clips.csv")


def read_record(path: Path) -> Record:
    """Read one record; a file that is none is a ``UsageError``."""
    values = read_json(path)
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
