"""Inputs of a run's pages besides its record: training log, submissions, ground truth and data set."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.engine.solutions import find_solution, solution_file
from avsbench_harness.errors import AvsbError
from avsbench_harness.files import sha256_json
from avsbench_harness.results.folder import Results
from avsbench_harness.results.recipe_changes import change_text, recipe_changes, recipe_label
from avsbench_harness.results.record import Record
from avsbench_harness.robustness.conditions import CLEAN
from avsbench_harness.submission import read_solution
from avsbench_harness.tasks import get_split

#: Returns the data set of a record, ``None`` if it is not available.
FindData = Callable[[Record], Dataset | None]

_CONDITION = re.compile(r"[a-z0-9][a-z0-9_.+-]{0,39}")


@dataclass(frozen=True)
class RunInputs:
    """Everything that a run's pages show, apart from the record.

    Attributes:
        results: content of the results folder.
        log: training log, ``None`` if not available.
        submissions: predictions by audio condition, ``clean`` first; empty without ground truth.
        solution: ground truth, ``None`` if not available or without predictions.
        dataset: data set of the run, ``None`` if not available or not needed.
        changes: changes to the preset; ``None`` if it is not available.
        digest: hash of all of them.
    """

    results: Results
    log: Path | None
    submissions: Mapping[str, Path]
    solution: Path | None
    dataset: Dataset | None
    changes: Mapping[str, Any] | None
    digest: str

    @classmethod
    def find(cls, record: Record, results: Results, find_data: FindData) -> RunInputs:
        """The inputs of a record's pages."""
        root = results.folder.parent
        log: Path | None = root / "runs" / record.run_id / "log.jsonl"
        submissions = _submissions(root / "submissions", record.run_id) if record.status == "done" else {}
        solution = find_solution(record.data.solution or "") if submissions else None
        dataset = find_data(record) if submissions else None
        if solution is None and dataset is not None:
            solution = _packed_solution(record, dataset)
        if solution is None:
            submissions, dataset = {}, None
        if log is not None and not log.is_file():
            log = None
        changes = recipe_changes(record)
        used = [path for path in (log, *submissions.values()) if path is not None]
        known = [
            results.keys[record.run_id],
            recipe_label(record),
            None if changes is None else [change_text(key, value) for key, value in changes.items()],
            [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in used],
            None if dataset is None else dataset.fingerprint(),
        ]
        return cls(results, log, submissions, solution, dataset, changes, sha256_json(known))


def _packed_solution(record: Record, dataset: Dataset) -> Path | None:
    """The ground truth of a record's split, packed from the data; ``None`` if it is another one."""
    try:
        path = solution_file(dataset, get_split(record.data.split))
        with read_solution(path) as solution:
            return path if solution.fingerprint == record.data.solution else None
    except AvsbError:
        return None


def _submissions(folder: Path, run_id: str) -> dict[str, Path]:
    """The submissions of a run for the test split by audio condition; empty without that of ``clean``."""
    clean = folder / f"{run_id}.npz"
    if not clean.is_file():
        return {}
    found = {CLEAN: clean}
    for path in sorted(folder.glob("*.npz")):
        condition = path.name.removeprefix(f"{run_id}-").removesuffix(".npz")
        ours = path.name.startswith(f"{run_id}-") and condition.split("-")[0] not in ("train", "val")
        if ours and _CONDITION.fullmatch(condition):
            found[condition] = path
    return found
