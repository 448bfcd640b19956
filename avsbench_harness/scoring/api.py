"""Scoring arrays in memory, and the protocols by name."""

from __future__ import annotations

import inspect
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

#: The protocol of leaderboards for s4 and ms3, and for avss.
CANONICAL_OBJECT = ObjectCanonical.name
CANONICAL_SEMANTIC = SemanticCanonical.name


def _protocols(task: str) -> dict[str, type[Protocol]]:
    return _SEMANTIC if get_task(task).semantic else _OBJECT


def protocols(task: str | None = None) -> dict[str, str]:
    """The definition of every protocol by its name, the canonical one first.

    Args:
        task: only those of this task; ``None`` gives all.
    """
    chosen = {**_OBJECT, **_SEMANTIC} if task is None else _protocols(task)
    return {name: inspect.getdoc(protocol) or "" for name, protocol in chosen.items()}


def canonical(task: str) -> str:
    """The name of the protocol that leaderboards of a task use."""
    return CANONICAL_SEMANTIC if get_task(task).semantic else CANONICAL_OBJECT


def get_protocol(task: str, name: str | None = None, batch: int | None = None) -> Protocol:
    """A protocol by name.

    Args:
        task: s4, ms3 or avss.
        name: ``None`` is the canonical one.
        batch: clips per batch; ``None`` is the published number.

    Raises:
        UsageError: an unknown name, or a batch size where the protocol has none.
    """
    known = _protocols(task)
    name = name or canonical(task)
    if name not in known:
        raise unknown(f"protocol for {task}", name, known)
    protocol = known[name]()
    if batch is None:
        return protocol
    if protocol.batch is None:
        raise UsageError(f"Protocol '{name}' does not depend on batches; leave out the batch size.")
    if batch < 1:
        raise UsageError(f"The batch size must be at least 1, got {batch}.")
    return replace(protocol, batch=batch)


def every_protocol(task: str) -> list[Protocol]:
    """All protocols of a task, avsbench with both published batch sizes."""
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
    """Score predictions of s4 or ms3 in memory.

    Args:
        codes: uint8 (N,T,H,W) of :func:`encode`; for ``combo`` float32 (N,T,2,H,W) scores.
        masks: {0,1} (N,T,H,W).
        protocol: a name of :func:`protocols`.
        batch: clips per batch where the protocol has batches; the published number by default.
        clips: names for the per-clip table, by default the index.

    Raises:
        ValueError: shapes or dtypes do not fit.
        UsageError: an unknown protocol or batch size.
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
        raise ValueError(f"predictions {predicted.shape} do not fit masks {truth.shape}: expected {expected}")
    scorer = Scorer(chosen, (truth.shape[2], truth.shape[3]))
    for ours, theirs in zip(predicted, truth, strict=True):
        scorer.add(chosen.count(ours, theirs))
    return scorer.scores(_names(clips, len(truth)))


def score_semantic(
    labels: npt.NDArray[Any],
    truth: npt.NDArray[Any],
    real: npt.NDArray[np.bool_] | None = None,
    protocol: str = CANONICAL_SEMANTIC,
    *,
    clips: Sequence[str] | None = None,
) -> Scores:
    """Score label maps of avss in memory.

    Args:
        labels, truth: uint8 (N,T,H,W) in 0..70.
        real: bool (N,T), frames that exist; ``None`` means all. What the others hold is ignored.
        protocol: a name of :func:`protocols`.
        clips: names for the per-clip table, by default the index.

    Raises:
        ValueError: shapes, dtypes or labels do not fit, or a clip has no real frame.
        UsageError: an unknown protocol.
    """
    chosen = get_protocol("avss", protocol)
    predicted, true = _bytes("labels", labels), _bytes("truth", truth)
    if true.ndim != 4 or not true.size or predicted.shape != true.shape:
        raise ValueError(f"labels {predicted.shape} and truth {true.shape} must both be (N,T,H,W)")
    exists = np.ones(true.shape[:2], bool) if real is None else np.asarray(real, bool)
    if exists.shape != true.shape[:2] or not exists.any(axis=1).all():
        raise ValueError(f"real must be {true.shape[:2]} with a real frame in every clip, got {exists.shape}")
    scorer = Scorer(chosen, (true.shape[2], true.shape[3]))
    for ours, theirs, frames in zip(predicted, true, exists, strict=True):
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
        raise ValueError(f"codes must be uint8, got {array.dtype}; make them with encode(prob)")
    return array


def _bytes(name: str, values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """bool, integer or whole floating-point values as uint8."""
    array = np.asarray(values)
    if array.dtype == np.uint8:
        return array
    small = array.astype(np.uint8)
    if not np.array_equal(small, array):
        raise ValueError(f"{name} must hold whole numbers from 0 to 255")
    return small
