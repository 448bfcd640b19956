"""Scoring a submission file against a solution file, clip by clip."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy.typing as npt

from avsbench_harness.errors import SubmissionError, UsageError, unknown
from avsbench_harness.scoring.api import every_protocol, get_protocol
from avsbench_harness.scoring.protocol import Counter, Protocol, Scorer
from avsbench_harness.scoring.scores import Scores, Unavailable
from avsbench_harness.submission import Solution, Submission

#: The clips of a solution: all, or those that a host publishes or keeps back.
PARTS = ("all", "public", "private")


def score_submission(
    submission: Submission,
    solution: Solution,
    protocol: str | None = None,
    *,
    batch: int | None = None,
    part: str = "all",
    workers: int | None = None,
) -> Scores:
    """Score an open submission against an open solution.

    Args:
        submission, solution: of ``read_submission`` and ``read_solution``.
        protocol: a name of ``protocols(task)``; ``None`` is the canonical one.
        batch: clips per batch; ``None`` is the published number.
        part: ``all``, ``public`` or ``private`` clips.
        workers: threads; ``None`` takes two, or one on a machine with one core.

    Raises:
        SubmissionError: the submission does not answer this solution, is damaged inside, or lacks the
            information that the protocol needs.
        UsageError: an unknown protocol, part or batch size.
    """
    chosen = get_protocol(solution.header.task, protocol, batch)
    (result,) = score_protocols(submission, solution, [chosen], part=part, workers=workers)
    if isinstance(result, Unavailable):
        raise SubmissionError(f"{submission.path}: protocol '{result.protocol}' {result.reason}.")
    return result


def score_protocols(
    submission: Submission,
    solution: Solution,
    chosen: Sequence[Protocol] | None = None,
    *,
    part: str = "all",
    workers: int | None = None,
) -> list[Scores | Unavailable]:
    """Score under several protocols in one pass over the clips; by default under every one of the task.

    Arguments and errors are those of :func:`score_submission`; a protocol that needs more than the submission
    holds gives an :class:`Unavailable` in its place.
    """
    task = solution.header.task
    chosen = every_protocol(task) if chosen is None else chosen
    submission.raise_faults()
    mismatches = solution.mismatches(submission)
    if mismatches:
        more = f" ({len(mismatches) - 1} more)" if len(mismatches) > 1 else ""
        raise SubmissionError(f"{submission.path}: {mismatches[0]}{more}")
    clips = _clips_of(solution, part)
    reasons = [_missing(protocol, submission, solution) for protocol in chosen]
    scorers = {
        i: Scorer(protocol, solution.header.size)
        for i, (protocol, reason) in enumerate(zip(chosen, reasons, strict=True))
        if not reason
    }
    _measure(list(scorers.values()), submission, solution, clips, workers)
    source = {
        "solution": solution.fingerprint,
        "dataset": solution.header.dataset,
        "part": part,
        "synthetic": solution.header.synthetic,
    }
    return [
        Unavailable(protocol.name, reason) if reason else scorers[i].scores(clips, **source)
        for i, (protocol, reason) in enumerate(zip(chosen, reasons, strict=True))
    ]


def _clips_of(solution: Solution, part: str) -> list[str]:
    """Ids in the data set's order."""
    if part not in PARTS:
        raise unknown("part", part, PARTS)
    private = {"all": (True, False), "public": (False,), "private": (True,)}[part]
    clips = [clip.id for clip in solution.header.clips if clip.private in private]
    if not clips:
        raise UsageError(
            f"{solution.path} has no {part} clips; score another part or pack it with a private one."
        )
    return clips


def _missing(protocol: Protocol, submission: Submission, solution: Solution) -> str:
    """Why a protocol cannot score a submission, empty if it can."""
    if protocol.needs_scores:
        return protocol.needs_scores
    ours, theirs = submission.header.size, solution.header.size
    if ours != theirs and protocol.side is None:
        return f"needs predictions of the masks' size {theirs[0]} x {theirs[1]}, not {ours[0]} x {ours[1]}"
    return ""


T = TypeVar("T")
R = TypeVar("R")


def _measure(
    scorers: Sequence[Scorer],
    submission: Submission,
    solution: Solution,
    clips: Sequence[str],
    workers: int | None,
) -> None:
    """Add every clip to every scorer; a few clips are in memory at a time, and equal counts are made once."""
    counters = list(dict.fromkeys(scorer.protocol.count for scorer in scorers))

    def one(clip_id: str) -> dict[Counter, npt.NDArray[Any]]:
        predicted, truth = submission.read(clip_id), solution.read(clip_id)
        return {count: count(predicted, truth) for count in counters}

    for counts in _in_order(one, clips, workers or min(2, os.cpu_count() or 1)):
        for scorer in scorers:
            scorer.add(counts[scorer.protocol.count])


def _in_order(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Map over threads with a bounded queue; inflating and counting both release the GIL."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
