"""Headers of submissions and solutions: the JSON in the member ``header.npy``."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from avsbench_harness.data.clip import CLIP_ID_RULE, is_clip_id
from avsbench_harness.errors import SubmissionError, UsageError, suggestion
from avsbench_harness.tasks import MASK_SIZE, Task, get_split, get_task

#: Version of the file format; files of other versions are refused.
FORMAT = 1

#: Largest side of a mask, which bounds the memory.
MAX_SIDE = 1024


def encoding_of(task: Task) -> str:
    """The encoding of a submission's arrays: ``labels`` for avss, else ``threshold-codes``."""
    return "labels" if task.semantic else "threshold-codes"


@dataclass(frozen=True)
class Header:
    """The header of a submission.

    Attributes:
        task, split: the predicted task and split.
        solution: fingerprint of the solution, 64 hexadecimal digits; empty if the ground truth is unknown to
            the program that predicted.
        method: name of the method for tables.
        run: id of the run; free text for submissions of other programs.
        note: free text.
        size: (H, W) of every clip.
        low_probability: ids of the clips whose probabilities are all below 2/254. Other clips with the codes
            0 and 1 alone are refused, because they are binary masks that were not converted to codes.
    """

    task: str
    split: str
    solution: str
    method: str
    run: str = ""
    note: str = ""
    size: tuple[int, int] = (MASK_SIZE, MASK_SIZE)
    low_probability: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The header as JSON values."""
        encoding = encoding_of(get_task(self.task))
        value = {"format": FORMAT, "kind": "submission", "encoding": encoding, **asdict(self)}
        if not self.low_probability:
            del value["low_probability"]
        return value

    @classmethod
    def from_json(cls, value: Any) -> Header:
        """Validate a parsed header.

        Raises:
            SubmissionError: the first fault.
        """
        known = _check_kind(value, "submission", {"encoding", *_names(cls)})
        task, split = _task_and_split(known)
        if known.get("encoding") != encoding_of(task):
            raise SubmissionError(
                f"header: encoding is {known.get('encoding')!r}; a submission for {task.name} "
                f"has '{encoding_of(task)}'."
            )
        return cls(
            task=task.name,
            split=split,
            solution=_fingerprint(known, "solution") if known.get("solution") != "" else "",
            method=_text(known, "method"),
            run=_text(known, "run", ""),
            note=_text(known, "note", ""),
            size=_size(known),
            low_probability=_clip_ids(known, "low_probability"),
        )


@dataclass(frozen=True, slots=True)
class SolutionClip:
    """One clip of a solution's header.

    Attributes:
        id: id of the clip.
        sha256: SHA-256 of the mask bytes.
        subset: ``v1s``, ``v1m`` or ``v2`` in avss, else the name of the task.
        private: whether a host withholds the clip's score from the public leaderboard.
    """

    id: str
    sha256: str
    subset: str
    private: bool


@dataclass(frozen=True)
class SolutionHeader:
    """The header of a solution.

    Attributes:
        task, split: the task and split of the masks.
        dataset: name of the data set.
        synthetic: whether the data set is synthetic; scores are marked accordingly.
        size: (H, W) of every mask.
        fingerprint: fingerprint of clips and masks.
        clips: the clips in the order of the data set, which determines the batches of published protocols.
    """

    task: str
    split: str
    dataset: str
    synthetic: bool
    size: tuple[int, int]
    fingerprint: str
    clips: tuple[SolutionClip, ...]

    def to_json(self) -> dict[str, Any]:
        """The header as JSON values."""
        return {"format": FORMAT, "kind": "solution", **asdict(self)}

    @classmethod
    def from_json(cls, value: Any) -> SolutionHeader:
        """Validate a parsed header.

        Raises:
            SubmissionError: the first fault.
        """
        known = _check_kind(value, "solution", set(_names(cls)))
        task, split = _task_and_split(known)
        clips = known.get("clips")
        if not isinstance(clips, list) or not clips:
            raise SubmissionError("header: clips must be a non-empty list.")
        return cls(
            task=task.name,
            split=split,
            dataset=_text(known, "dataset"),
            synthetic=_flag(known, "synthetic"),
            size=_size(known),
            fingerprint=_fingerprint(known, "fingerprint"),
            clips=tuple(_solution_clip(clip) for clip in clips),
        )


def parse(data: bytes) -> Any:
    """Parse the header's bytes as JSON.

    Raises:
        SubmissionError: the bytes are not UTF-8 JSON.
    """
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise SubmissionError(f"header: not UTF-8 JSON ({str(error)[:100]}).") from None


def check_clip_id(clip_id: str) -> str:
    """Return a valid clip id.

    Raises:
        SubmissionError: the id is not allowed.
    """
    if not is_clip_id(clip_id):
        raise SubmissionError(f"{clip_id[:80]!r} is not a valid clip id; ids have {CLIP_ID_RULE}.")
    return clip_id


def _names(cls: Any) -> list[str]:
    return [field.name for field in fields(cls)]


def _check_kind(value: Any, kind: str, names: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SubmissionError("header: must be a JSON object.")
    if value.get("format") != FORMAT or isinstance(value.get("format"), bool):
        raise SubmissionError(f"header: format is {value.get('format')!r}; this version reads {FORMAT}.")
    if value.get("kind") != kind:
        raise SubmissionError(f"header: kind is {value.get('kind')!r}; expected a {kind}.")
    known = names | {"format", "kind"}
    for name in value:
        if name not in known:
            raise SubmissionError(f"header: unknown key {name[:80]!r}.{suggestion(name[:80], known)}")
    return value


def _text(value: dict[str, Any], name: str, default: str | None = None) -> str:
    text = value.get(name, default)
    if not isinstance(text, str):
        raise SubmissionError(f"header: {name} must be a string, got {_short(text)}.")
    return text


def _flag(value: dict[str, Any], name: str) -> bool:
    flag = value.get(name)
    if not isinstance(flag, bool):
        raise SubmissionError(f"header: {name} must be true or false, got {_short(flag)}.")
    return flag


def _fingerprint(value: dict[str, Any], name: str) -> str:
    text = _text(value, name)
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise SubmissionError(f"header: {name} must be 64 hexadecimal digits, got {_short(text)}.")
    return text


def _clip_ids(value: dict[str, Any], name: str) -> tuple[str, ...]:
    ids = value.get(name, [])
    if not isinstance(ids, list) or not all(isinstance(clip_id, str) for clip_id in ids):
        raise SubmissionError(f"header: {name} must be a list of clip ids, got {_short(ids)}.")
    return tuple(ids)


def _size(value: dict[str, Any]) -> tuple[int, int]:
    size = value.get("size")
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(type(side) is int and 1 <= side <= MAX_SIDE for side in size)
    ):
        raise SubmissionError(f"header: size must be [H, W] of 1 to {MAX_SIDE} pixels, got {_short(size)}.")
    return size[0], size[1]


def _task_and_split(value: dict[str, Any]) -> tuple[Task, str]:
    try:
        return get_task(_text(value, "task")), get_split(_text(value, "split"))
    except UsageError as error:
        raise SubmissionError(f"header: {error}") from None


def _solution_clip(value: Any) -> SolutionClip:
    if not isinstance(value, dict) or set(value) != set(_names(SolutionClip)):
        raise SubmissionError(
            f"header: a clip must have {', '.join(_names(SolutionClip))}, got {_short(value)}."
        )
    return SolutionClip(
        id=check_clip_id(_text(value, "id")),
        sha256=_fingerprint(value, "sha256"),
        subset=_text(value, "subset"),
        private=_flag(value, "private"),
    )


def _short(value: Any) -> str:
    """A value for an error message, shortened to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
