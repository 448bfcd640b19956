"""Scores of records recomputed from their submissions, where submission and solution are available."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from avsbench_harness.console import track
from avsbench_harness.engine.run import with_side
from avsbench_harness.engine.solutions import find_solution
from avsbench_harness.errors import AvsbError, one_line
from avsbench_harness.files import sha256_file
from avsbench_harness.results.check_cache import open_cache
from avsbench_harness.results.folder import Results
from avsbench_harness.results.record import Record, ScoreEntry
from avsbench_harness.results.score_faults import equal
from avsbench_harness.scoring import get_protocol, score_submission
from avsbench_harness.submission import read_solution, read_submission
from avsbench_harness.tasks import MASK_SIZE


def rescore_faults(results: Results) -> Iterator[str]:
    """Differences between the metrics of valid records and those of their submissions, one sentence each.

    Submissions are read from ``submissions/`` next to the results folder, a solution from the cache; records
    without them are not scored again, nor scores at another size without the submission of that size.
    The outcome is cached by the content of record and submissions.
    """
    found = []
    for record in results.records:
        path = results.folder.parent / "submissions" / f"{record.run_id}.npz"
        solution = find_solution(record.data.solution or "") if path.is_file() else None
        if solution is not None and record.status == "done":
            found.append((record, path, solution))
    with open_cache() as cache:
        for record, path, solution in track(found, "scoring submissions again"):
            files = dict.fromkeys(_scored_file(path, record, entry) for entry in record.scores)
            digests = {file: sha256_file(file) for file in (path, *files) if file.is_file()}
            text = " ".join(["rescore", results.keys[record.run_id], *digests.values()])
            key = hashlib.sha256(text.encode()).hexdigest()
            known = cache.get([key]).get(key)
            if known is None:
                faults = [one_line(fault) for fault in _faults(record, path, digests, solution)]
                cache.put({key: json.dumps(faults).encode()})
            else:
                faults = json.loads(known)
            yield from (f"{results.folder / record.run_id}.json: {fault}" for fault in faults)


def _scored_file(path: Path, record: Record, entry: ScoreEntry) -> Path:
    """The submission of the size that an entry of a record scores."""
    return with_side(path, get_protocol(record.task, entry.protocol).side or MASK_SIZE)


def _faults(record: Record, path: Path, digests: Mapping[Path, str], solution: Path) -> Iterator[str]:
    if digests[path] != record.submission_sha256:
        yield f"{path} is not the submission that was scored."
        return
    try:
        with read_solution(solution) as truth:
            for entry in record.scores:
                file = _scored_file(path, record, entry)
                if file not in digests:
                    continue
                with read_submission(file) as predicted:
                    scores = score_submission(
                        predicted, truth, entry.protocol, batch=entry.batch, part=entry.part
                    )
                for name, value in entry.metrics.items():
                    if not equal(value, scores.metrics[name]):
                        yield (
                            f"{entry.protocol} ({entry.part}): {name} is {value}, but the submission gives "
                            f"{scores.metrics[name]}."
                        )
    except AvsbError as error:
        yield f"the submission cannot be scored again: {error}"
