"""Solutions: the ground truth of a split in one npz file, identified by a fingerprint of clips and masks.

A host scores submissions with a solution, without the data set, and can withhold the scores of private clips.
The fingerprint is the SHA-256 of the canonical JSON (sorted keys, no spaces) of

    {"format": 1, "task": ..., "split": ..., "clips": [[id, [T, H, W], sha256 of the mask bytes], ...]}

with the clips sorted by id. It depends neither on the order of the clips nor on the compression of the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from avsbench_harness.errors import SubmissionError, UsageError
from avsbench_harness.files import sha256_json
from avsbench_harness.submission.header import FORMAT, SolutionClip, SolutionHeader
from avsbench_harness.submission.reader import Bytes, ClipFile, Submission, check_labels
from avsbench_harness.submission.writer import ClipWriter, as_labels
from avsbench_harness.tasks import CLASSES, Task, get_split, get_task

#: (id, masks (T,H,W) without padded frames, subset) of a clip.
ClipMasks = tuple[str, npt.ArrayLike, str]


def _mask_bytes(clip_id: str, masks: npt.ArrayLike, task: Task) -> Bytes:
    """Masks as stored in a solution: uint8 in {0,1} (s4, ms3) or 0..70 (avss)."""
    return np.ascontiguousarray(as_labels(clip_id, masks, len(CLASSES) if task.semantic else 2))


def _fingerprint(task: str, split: str, clips: Iterable[tuple[str, tuple[int, ...], str]]) -> str:
    listed = sorted([clip_id, list(shape), digest] for clip_id, shape, digest in clips)
    return sha256_json({"format": FORMAT, "task": task, "split": split, "clips": listed})


def _sha256(masks: Bytes) -> str:
    return hashlib.sha256(masks.data).hexdigest()


def fingerprint_solution(task: str, split: str, clips: Iterable[ClipMasks]) -> str:
    """Compute the fingerprint of a solution without writing it; keeps one clip in memory."""
    kind = get_task(task)
    found = []
    for clip_id, masks, _ in clips:
        stored = _mask_bytes(clip_id, masks, kind)
        found.append((clip_id, stored.shape, _sha256(stored)))
    return _fingerprint(kind.name, get_split(split), found)


def private_clips(clip_ids: Iterable[str], fraction: float, seed: int) -> set[str]:
    """Draw the private clips, ``round(fraction * n)`` of them, independently of their order.

    Args:
        clip_ids: ids of all clips.
        fraction: fraction of private clips, in [0, 1).
        seed: random seed.

    Raises:
        UsageError: the fraction is out of range.
    """
    if not 0 <= fraction < 1:
        raise UsageError(f"The private fraction must lie in [0, 1), got {fraction}.")
    drawn = sorted(clip_ids, key=lambda clip_id: hashlib.sha256(f"{seed}:{clip_id}".encode()).digest())
    return set(drawn[: round(fraction * len(drawn))])


class SolutionWriter(ClipWriter):
    """Write a solution clip by clip; at least one mask must have an object.

    Args:
        path: file to write.
        task, split: the task and split of the masks.
        dataset: name of the data set for tables.
        synthetic: whether the data set is synthetic.
        size: (H, W) of every mask; ``None`` for the size of the first clip.
        private: fraction of private clips, or their ids.
        seed: random seed for the choice of a fraction of clips.
    """

    def __init__(
        self,
        path: Path,
        task: str,
        split: str,
        *,
        dataset: str = "AVSBench",
        synthetic: bool = False,
        size: tuple[int, int] | None = None,
        private: float | Collection[str] = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(path, get_task(task), size or (0, 0))
        self.split = get_split(split)
        self.dataset = dataset
        self.synthetic = synthetic
        self._private = private
        self._seed = seed
        if isinstance(private, float | int):
            private_clips((), private, seed)  # raise an invalid fraction before any work
        self._written: list[tuple[str, tuple[int, ...], str, str]] = []
        self._has_object = False

    def add(self, clip_id: str, masks: npt.ArrayLike, subset: str = "") -> None:
        """Append one clip: masks (T,H,W) without padded frames, in {0,1} (s4, ms3) or 0..70 (avss)."""
        stored = _mask_bytes(clip_id, masks, self.task)
        if self.size == (0, 0) and stored.ndim == 3:
            self.size = (stored.shape[1], stored.shape[2])
        self._add(clip_id, stored)
        self._written.append((clip_id, stored.shape, _sha256(stored), subset or self.task.name))
        self._has_object = self._has_object or bool(stored.any())

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the clips added so far."""
        return _fingerprint(self.task.name, self.split, (clip[:3] for clip in self._written))

    def _header(self) -> dict[str, Any]:
        if not self._has_object:
            raise UsageError(
                f"The masks of all {len(self._written)} {self.split} clips are empty, so {self.path} would "
                "score every submission by its background; run `avsb data check` on the data."
            )
        private = self._private
        if isinstance(private, float | int):
            private = private_clips((clip[0] for clip in self._written), private, self._seed)
        return SolutionHeader(
            task=self.task.name,
            split=self.split,
            dataset=self.dataset,
            synthetic=self.synthetic,
            size=self.size,
            fingerprint=self.fingerprint,
            clips=tuple(
                SolutionClip(id=clip_id, sha256=digest, subset=subset, private=clip_id in private)
                for clip_id, _, digest, subset in self._written
            ),
        ).to_json()


def write_solution(path: Path, task: str, split: str, clips: Iterable[ClipMasks], **options: Any) -> str:
    """Write a solution and return its fingerprint.

    Args:
        path, task, split: as for :class:`SolutionWriter`.
        clips: (id, masks, subset) of each clip, in the order of the data set.
        options: keyword arguments of :class:`SolutionWriter`.
    """
    with SolutionWriter(path, task, split, **options) as writer:
        for clip_id, masks, subset in clips:
            writer.add(clip_id, masks, subset)
    return writer.fingerprint


class Solution(ClipFile):
    """An open solution; the hash of a mask is verified when it is read.

    Attributes:
        header: the header.
        clips: the header's clips by id, in the order of the data set.
    """

    header: SolutionHeader
    clips: dict[str, SolutionClip]

    @property
    def fingerprint(self) -> str:
        """Fingerprint of clips and masks."""
        return self.header.fingerprint

    def mismatches(self, submission: Submission, clips: Collection[str] | None = None) -> list[str]:
        """Differences between a submission and this solution, one line each; empty if it can be scored.

        Args:
            submission: the submission.
            clips: the clips that it must have; ``None`` for all clips of the solution.
        """
        theirs, ours = submission.header, self.header
        if (theirs.task, theirs.split) != (ours.task, ours.split):
            return [
                f"it is for {theirs.task} {theirs.split}, the solution for {ours.task} {ours.split}; "
                "pass the solution of its split."
            ]
        found = []
        if theirs.solution not in ("", ours.fingerprint):
            found.append(
                f"it is for solution {theirs.solution}, not {ours.fingerprint}: another data set or another "
                "version of the masks; predict again on this data."
            )
        needed = self.shapes if clips is None else clips
        missing = [
            clip_id for clip_id in self.shapes if clip_id in needed and clip_id not in submission.shapes
        ]
        found += [f"clip '{clip_id}' is missing; predict it and write the file again." for clip_id in missing]
        for clip_id, shape in submission.shapes.items():
            if clip_id not in self.shapes:
                found.append(f"clip '{clip_id}' is not in the solution; remove it.")
            elif shape[0] != self.shapes[clip_id][0]:
                found.append(
                    f"clip '{clip_id}' has {shape[0]} frames, the solution {self.shapes[clip_id][0]}; "
                    "write all frames of the clip, without padded frames."
                )
        return found

    def _read_header(self, value: Any) -> tuple[str, tuple[int, int]]:
        self.header = SolutionHeader.from_json(value)
        self.clips = {clip.id: clip for clip in self.header.clips}
        return self.header.task, self.header.size

    def _check_values(self, clip_id: str, array: Bytes) -> None:
        if _sha256(array) != self.clips[clip_id].sha256:
            raise SubmissionError(
                "its masks do not match their hash; take an unchanged copy of the solution."
            )
        if get_task(self.header.task).semantic:
            check_labels(array)
        elif array.max() > 1:
            raise SubmissionError(f"mask value {array.max()}; masks of {self.header.task} hold 0 and 1.")


def read_solution(path: Path) -> Solution:
    """Open a solution and check header, clips and fingerprint; use it as a context manager.

    Raises:
        MissingDataError: the file cannot be opened.
        SubmissionError: the file is not a valid solution; the message names the first fault.
    """
    solution = Solution(path)
    header = solution.header
    listed = list(solution.clips)
    if len(listed) != len(header.clips) or (not solution.faults and set(listed) != set(solution.shapes)):
        solution.faults.append("its header does not list the clips of the file; create it again.")
    if not solution.faults:
        clips = ((clip.id, solution.shapes[clip.id], clip.sha256) for clip in header.clips)
        actual = _fingerprint(header.task, header.split, clips)
        if actual != header.fingerprint:
            solution.faults.append(
                f"its fingerprint is {actual}, but its header has {header.fingerprint}; create it again."
            )
    try:
        solution.raise_faults()
    except SubmissionError:
        solution.close()
        raise
    return solution
