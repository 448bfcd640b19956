"""Scores of a submission file against a solution file, clip by clip."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy.typing as npt

from avsbench_harness.errors import SubmissionError, UsageError, unknown
from avsbench_harness.scoring.api import every_protocol, get_protocol
from avsbench_harness.scoring.protocol import Counter, Protocol, Scorer
from avsbench_harness.scoring.scores import Scores, Unavailable
from avsbench_harness.submission import Solution, Submission, check_submission
from avsbench_harness.tasks import MASK_SIZE

#: Parts of the clips of a solution; a host publishes the scores of the public clips only.
PARTS = ("all", "public", "private")


def score_submission(
    submission: Submission,
    solution: Solution,
    protocol: str | None = None,
    *,
    batch: int | None = None,
    part: str = "all",
    clips: Collection[str] | None = None,
    workers: int | None = None,
) -> Scores:
    """Score an open submission against an open solution.

    Args:
        submission: result of ``read_submission``.
        solution: result of ``read_solution``.
        protocol: name of a protocol of the task; ``None`` for the canonical one.
        batch: clips per batch; ``None`` for the published number.
        part: ``all``, ``public`` or ``private`` clips.
        clips: ids of the clips of that part to score, which alone the submission must have; ``None`` for all.
        workers: number of threads; ``None`` for two, or one with a single core.

    Raises:
        SubmissionError: the submission is for another solution, has damaged clips, or lacks information that
            the protocol needs.
        UsageError: unknown protocol or part, or invalid batch size.
    """
    chosen = get_protocol(solution.header.task, protocol, batch)
    (result,) = score_protocols(submission, solution, [chosen], part=part, clips=clips, workers=workers)
    if isinstance(result, Unavailable):
        raise SubmissionError(f"{submission.path}: protocol '{result.protocol}' {result.reason}.")
    return result


def find_faults(path: Path, solution: Solution | None = None, protocol: str | None = None) -> list[str]:
    """All faults of a submission, one line each; empty if it can be scored.

    Args:
        path: the file.
        solution: result of ``read_solution``, to also check clips, numbers of frames and fingerprint; without
            it, masks of the official size are assumed.
        protocol: name of the protocol to score by; ``None`` for the canonical one.

    Raises:
        MissingDataError: the file cannot be opened.
        UsageError: unknown protocol.
    """
    if solution is not None:
        get_protocol(solution.header.task, protocol)  # also where the submission cannot be opened
    faults = check_submission(path, solution)
    with suppress(SubmissionError), Submission(path) as submission:
        task = submission.header.task
        if solution is None or solution.header.task == task:
            chosen = get_protocol(task, protocol)
            size = (MASK_SIZE, MASK_SIZE) if solution is None else solution.header.size
            reason = _missing(chosen, submission, size)
            faults += [f"protocol '{chosen.name}' {reason}."] if reason else []
    return faults


def score_protocols(
    submission: Submission,
    solution: Solution,
    chosen: Sequence[Protocol] | None = None,
    *,
    part: str = "all",
    clips: Collection[str] | None = None,
    workers: int | None = None,
) -> list[Scores | Unavailable]:
    """Score under several protocols in one pass over the clips.

    Args:
        submission, solution, part, clips, workers: as for :func:`score_submission`.
        chosen: the protocols; ``None`` for all protocols of the task.

    Returns:
        one entry per protocol; :class:`Unavailable` if the submission lacks information that it needs.

    Raises:
        SubmissionError, UsageError: as for :func:`score_submission`.
    """
    task = solution.header.task
    chosen = every_protocol(task) if chosen is None else chosen
    submission.raise_faults()
    mismatches = solution.mismatches(submission, clips)
    if mismatches:
        more = f" ({len(mismatches) - 1} more)" if len(mismatches) > 1 else ""
        raise SubmissionError(f"{submission.path}: {mismatches[0]}{more}")
    scored = [clip for clip in _clips_of(solution, part) if clips is None or clip in clips]
    if not scored:
        raise UsageError(f"{submission.path}: none of the clips to score is in {solution.path}.")
    reasons = [_missing(protocol, submission, solution.header.size) for protocol in chosen]
    scorers = {
        i: Scorer(protocol, solution.header.size)
        for i, (protocol, reason) in enumerate(zip(chosen, reasons, strict=True))
        if not reason
    }
    _count_clips(list(scorers.values()), submission, solution, scored, workers)
    source = {
        "solution": solution.fingerprint,
        "dataset": solution.header.dataset,
        "part": part,
        "synthetic": solution.header.synthetic,
    }
    return [
        Unavailable(protocol.name, reason) if reason else scorers[i].scores(scored, **source)
        for i, (protocol, reason) in enumerate(zip(chosen, reasons, strict=True))
    ]


def _clips_of(solution: Solution, part: str) -> list[str]:
    """The ids of a part of the clips, in the order of the data set."""
    if part not in PARTS:
        raise unknown("part", part, PARTS)
    private = {"all": (True, False), "public": (False,), "private": (True,)}[part]
    clips = [clip.id for clip in solution.header.clips if clip.private in private]
    if not clips:
        raise UsageError(
            f"{solution.path} has no {part} clips; score another part, or create it with private clips."
        )
    return clips


def _missing(protocol: Protocol, submission: Submission, size: tuple[int, int]) -> str:
    """The reason why a protocol cannot score a submission against masks (H, W), empty if it can."""
    if protocol.needs_scores:
        return protocol.needs_scores
    ours = submission.header.size
    if ours != size and protocol.side is None:
        return (
            f"needs predictions of the masks' size {size[0]} x {size[1]}, not {ours[0]} x {ours[1]}; "
            "resize the probabilities before they are encoded"
        )
    return ""


T = TypeVar("T")
R = TypeVar("R")


def _count_clips(
    scorers: Sequence[Scorer],
    submission: Submission,
    solution: Solution,
    clips: Sequence[str],
    workers: int | None,
) -> None:
    """Add every clip to every scorer; keeps a few clips in memory and shares counts between protocols."""
    counters = list(dict.fromkeys(scorer.protocol.count for scorer in scorers))

    def count_clip(clip_id: str) -> dict[Counter, npt.NDArray[Any]]:
        predicted, truth = submission.read(clip_id), solution.read(clip_id)
        return {count: count(predicted, truth) for count in counters}

    for counts in _in_order(count_clip, clips, workers or min(2, os.cpu_count() or 1)):
        for scorer in scorers:
            scorer.add(counts[scorer.protocol.count])


def _in_order(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Map over threads with a bounded queue; decompression and counting release the GIL."""
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
