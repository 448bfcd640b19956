"""The ground truth that a submission is scored against, if the user names none."""

from __future__ import annotations

from pathlib import Path

from avsbench_harness.data.avsbench.layout import Dataset, open_dataset
from avsbench_harness.data.avsbench.tree import GENERATED, VARIABLE, data_root
from avsbench_harness.engine.solutions import find_solution, solution_file
from avsbench_harness.errors import AvsbError, MissingDataError
from avsbench_harness.launch.datasets import find_generated, generated_root
from avsbench_harness.results.record import Record
from avsbench_harness.submission import Header, read_solution
from avsbench_harness.tasks import get_split, get_task


def ground_truth(header: Header, solution: Path | None, data: Path | None) -> Path:
    """The solution file for a submission.

    In this order: ``solution``; that of the data root ``data``; the cached one with the fingerprint in the
    submission's header; that of the data root in ``AVSB_DATA_DIR``; that of a generated data set in the cache
    with that fingerprint.

    Raises:
        MissingDataError: there is none.
    """
    if solution is not None:
        return solution
    if data is None:
        cached = find_solution(header.solution)
        if cached is not None:
            return cached
    root, task, split = data_root(data), get_task(header.task), get_split(header.split)
    if root is not None:
        return solution_file(open_dataset(root, task), split)
    for name in GENERATED if split != "train" else ():
        generated = generated_root(name, task)
        if generated.is_dir():
            path = solution_file(open_dataset(generated, task), split)
            with read_solution(path) as found:
                if found.fingerprint == header.solution:
                    return path
    unknown = "is unknown" if not header.solution else f"{header.solution[:12]} is not in the cache"
    raise MissingDataError(
        f"The ground truth of this submission {unknown}; pass --solution FILE, or --data ROOT (or set "
        f"{VARIABLE}) with AVSBench on disk."
    )


def data_of(record: Record, data: Path | None) -> Dataset | None:
    """The data set of a record: in the data root, or a generated one in the cache; ``None`` if it is neither.

    Args:
        record: of a run.
        data: data root; defaults to ``AVSB_DATA_DIR``.
    """
    task = get_task(record.task)
    try:
        root = data_root(data)
        if root is None:
            fingerprint = record.data.fingerprint
            return None if fingerprint is None else find_generated(task, fingerprint)
        candidate = open_dataset(root, task)
    except AvsbError:
        return None
    return candidate if candidate.fingerprint() == record.data.fingerprint else None
