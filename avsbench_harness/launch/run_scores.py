"""The scores of a record: the canonical protocol, those of the recipe, and the parts of a host's split."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from avsbench_harness.engine.run import with_side
from avsbench_harness.errors import MissingDataError, SubmissionError, UsageError
from avsbench_harness.files import read_json
from avsbench_harness.results.record import is_run_id
from avsbench_harness.scoring import (
    Scores,
    Unavailable,
    canonical,
    get_protocol,
    protocols,
    score_protocols,
    score_submission,
)
from avsbench_harness.submission import read_submission

if TYPE_CHECKING:
    from avsbench_harness.submission import Header, Solution, Submission
    from avsbench_harness.tasks import Task


def score_with_protocols(submission: Submission, solution: Solution, names: Sequence[str]) -> list[Scores]:
    """Score a submission under the canonical protocol, other protocols, and per part.

    Args:
        submission: the predictions. Protocols of another size score the run's submission of that size, which
            lies beside it, see :func:`avsbench_harness.engine.run.with_side`.
        solution: the ground truth.
        names: further protocols.

    Returns:
        the canonical scores first; then those of ``names``; then the canonical ones of the public and of the
        private part, if the solution has parts.

    Raises:
        UsageError: the task has no such protocol.
        SubmissionError: as for ``score_submission``.
        MissingDataError: there is no submission of the size that a protocol needs.
    """
    task = solution.header.task
    wanted = [get_protocol(task, name) for name in dict.fromkeys([canonical(task), *names])]
    scores: list[Scores] = []
    for side in dict.fromkeys(protocol.side for protocol in wanted):
        chosen = [protocol for protocol in wanted if protocol.side == side]
        with ExitStack() as stack:
            predicted = submission if side is None else stack.enter_context(_sized(submission, side))
            results = score_protocols(predicted, solution, chosen)
        for result in results:
            if isinstance(result, Unavailable):
                raise SubmissionError(f"{submission.path}: protocol '{result.protocol}' {result.reason}.")
            scores.append(result)
    if any(clip.private for clip in solution.header.clips):
        scores += [score_submission(submission, solution, part=part) for part in ("public", "private")]
    return scores


def sides(task: Task, names: Sequence[str]) -> list[int]:
    """The sizes of submissions, beside the usual one, that protocols of a recipe need."""
    found = (get_protocol(task.name, name).side for name in names)
    return list(dict.fromkeys(side for side in found if side is not None))


def _sized(submission: Submission, side: int) -> Submission:
    """Open the submission of another size beside a submission."""
    path = with_side(submission.path, side)
    if not path.is_file():
        raise MissingDataError(
            f"The recipe's protocols need the predictions at {side} x {side}, but {path} does not exist; "
            "write it with `avsb predict` and the options of the run."
        )
    return read_submission(path)


def check_protocols(task: Task, names: Sequence[str]) -> None:
    """Refuse protocols of a recipe that cannot score a submission of the task.

    Raises:
        UsageError: a protocol is unknown, of another task, or needs more than a submission holds.
    """
    for name in names:
        if name in protocols() and name not in protocols(task.name):
            raise UsageError(
                f"The recipe names the protocol '{name}', which does not score {task.name}; "
                f"there are {', '.join(protocols(task.name))}."
            )
        reason = get_protocol(task.name, name).needs_scores
        if reason:
            raise UsageError(f"The recipe names the protocol '{name}', which {reason}; leave it out.")


def recipe_protocols(out: Path, header: Header) -> list[str]:
    """The protocols that the recipe of a submission's run names; empty if the run is not under ``out``."""
    if header.split != "test" or not is_run_id(header.run):
        return []
    path = out / "runs" / header.run / "spec.json"
    return list(read_json(path)["recipe"].get("protocols", [])) if path.is_file() else []
