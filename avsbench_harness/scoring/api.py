"""Scores of arrays in memory, and protocols by name."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from avsbench_harness.errors import UsageError, unknown
from avsbench_harness.scoring.davis import Davis, DavisSemiSupervised
from avsbench_harness.scoring.object import (
    AVSBench,
    AVSegFormer,
    Catr,
    Combo,
    ObjectCanonical,
    ObjectConfusion,
    RobustFPR,
)
from avsbench_harness.scoring.protocol import Protocol, Scorer
from avsbench_harness.scoring.scores import Scores
from avsbench_harness.scoring.semantic import AVSSAVSBench, AVSSCombo, SemanticCanonical, SemanticConfusion
from avsbench_harness.submission.codes import BINARY_REMEDY, looks_binary
from avsbench_harness.tasks import get_task

_OBJECT: dict[str, type[Protocol]] = {
    protocol.name: protocol
    for protocol in (
        ObjectCanonical,
        AVSBench,
        AVSegFormer,
        Combo,
        Catr,
        RobustFPR,
        Davis,
        DavisSemiSupervised,
        ObjectConfusion,
    )
}
_SEMANTIC: dict[str, type[Protocol]] = {
    protocol.name: protocol for protocol in (SemanticCanonical, AVSSAVSBench, AVSSCombo, SemanticConfusion)
}

#: Canonical protocols, used by leaderboards: of s4 and ms3, and of avss.
CANONICAL_OBJECT = ObjectCanonical.name
CANONICAL_SEMANTIC = SemanticCanonical.name


def _protocols(task: str) -> dict[str, type[Protocol]]:
    return _SEMANTIC if get_task(task).semantic else _OBJECT


def protocols(task: str | None = None) -> dict[str, str]:
    """The definitions of protocols by name, the canonical one first.

    Args:
        task: protocols of this task; ``None`` for all protocols.
    """
    chosen = {**_OBJECT, **_SEMANTIC} if task is None else _protocols(task)
    return {name: inspect.getdoc(protocol) or "" for name, protocol in chosen.items()}


def canonical(task: str) -> str:
    """The name of a task's canonical protocol."""
    return CANONICAL_SEMANTIC if get_task(task).semantic else CANONICAL_OBJECT


def get_protocol(task: str, name: str | None = None, batch: int | None = None) -> Protocol:
    """Return a protocol by name.

    Args:
        task: s4, ms3 or avss.
        name: name of the protocol; ``None`` for the canonical one.
        batch: clips per batch; ``None`` for the published number.

    Raises:
        UsageError: unknown name, or a batch size for a protocol without batches.
    """
    known = _protocols(task)
    name = name or canonical(task)
    if name not in known:
        raise unknown(f"protocol for {task}", name, known)
    protocol = known[name]()
    if batch is None:
        return protocol
    if protocol.batch is None:
        raise UsageError(f"Protocol '{name}' does not depend on batches; remove the batch size.")
    if batch < 1:
        raise UsageError(f"The batch size must be at least 1, got {batch}.")
    return replace(protocol, batch=batch)


def every_protocol(task: str) -> list[Protocol]:
    """All protocols of a task; avsbench with both published batch sizes."""
    chosen: list[Protocol] = []
    for name in _protocols(task):
        chosen.append(get_protocol(task, name))
        if name == AVSBench.name:
            chosen.append(get_protocol(task, name, batch=4))
    return chosen


def score_object(
    codes: npt.NDArray[Any],
    masks: npt.NDArray[Any],
    protocol: str = CANONICAL_OBJECT,
    *,
    batch: int | None = None,
    clips: Sequence[str] | None = None,
) -> Scores:
    """Score predictions for s4 or ms3.

    Args:
        codes: (N,T,H,W) uint8 threshold codes, see :func:`encode`; for protocol ``combo`` (N,T,2,H,W) float32
            class scores.
        masks: (N,T,H,W) in {0,1}.
        protocol: name of a protocol, see :func:`protocols`.
        batch: clips per batch; ``None`` for the published number.
        clips: ids for the per-clip table; ``None`` for the index.

    Raises:
        ValueError: wrong shapes or dtypes.
        UsageError: unknown protocol or invalid batch size.
    """
    chosen = get_protocol("s4", protocol, batch)
    truth = _bytes("masks", masks)
    predicted: npt.NDArray[Any]
    if chosen.needs_scores:
        predicted = np.asarray(codes, np.float32)
        expected: tuple[int, ...] = (*truth.shape[:2], 2, *truth.shape[2:])
    else:
        predicted = _codes(codes)
        sides = predicted.shape[2:] if chosen.side else truth.shape[2:]
        expected = (*truth.shape[:2], *sides)
    if truth.ndim != 4 or not truth.size or predicted.shape != expected:
        raise ValueError(
            f"predictions have shape {predicted.shape}, expected {expected} for masks {truth.shape}"
        )
    scorer = Scorer(chosen, (truth.shape[2], truth.shape[3]))
    for ours, theirs in zip(predicted, truth, strict=True):
        scorer.add(chosen.count(ours, theirs))
    return scorer.scores(_names(clips, len(truth)))


def score_semantic(
    labels: npt.NDArray[Any],
    truth: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_] | None = None,
    protocol: str = CANONICAL_SEMANTIC,
    *,
    clips: Sequence[str] | None = None,
) -> Scores:
    """Score label maps for avss.

    Args:
        labels, truth: (N,T,H,W) uint8 in 0..70.
        valid: (N,T) bool, ``False`` for padded frames, which are ignored; ``None`` if all frames are valid.
        protocol: name of a protocol, see :func:`protocols`.
        clips: ids for the per-clip table; ``None`` for the index.

    Raises:
        ValueError: wrong shapes, dtypes or labels, or a clip without a valid frame.
        UsageError: unknown protocol.
    """
    chosen = get_protocol("avss", protocol)
    predicted, true = _bytes("labels", labels), _bytes("truth", truth)
    if true.ndim != 4 or not true.size or predicted.shape != true.shape:
        raise ValueError(f"labels {predicted.shape} and truth {true.shape} must both be (N,T,H,W)")
    kept = np.ones(true.shape[:2], bool) if valid is None else np.asarray(valid, bool)
    if kept.shape != true.shape[:2] or not kept.any(axis=1).all():
        raise ValueError(f"valid must be {true.shape[:2]} with a valid frame in every clip, got {kept.shape}")
    scorer = Scorer(chosen, (true.shape[2], true.shape[3]))
    for ours, theirs, frames in zip(predicted, true, kept, strict=True):
        scorer.add(chosen.count(ours[frames], theirs[frames]))
    return scorer.scores(_names(clips, len(true)))


def _names(clips: Sequence[str] | None, n: int) -> list[str]:
    names = [str(i) for i in range(n)] if clips is None else list(clips)
    if len(names) != n:
        raise ValueError(f"{len(names)} names for {n} clips")
    return names


def _codes(codes: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    array = np.asarray(codes)
    if array.dtype != np.uint8:
        raise ValueError(f"codes must be uint8, got {array.dtype}; create them with encode(prob)")
    if looks_binary(array):
        warnings.warn(
            f"All codes are 0 and 1, that is, probabilities below 2/254; {BINARY_REMEDY}.", stacklevel=3
        )
    return array


def _bytes(name: str, values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Convert bool, integer or integral floating-point values to uint8."""
    array = np.asarray(values)
    if array.dtype == np.uint8:
        return array
    small = array.astype(np.uint8)
    if not np.array_equal(small, array):
        raise ValueError(f"{name} must hold integers from 0 to 255")
    return small
