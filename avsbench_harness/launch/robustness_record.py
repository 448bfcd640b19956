"""The robustness record of a run: scores and metrics of its submissions under audio conditions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd

from avsbench_harness.data.audio.changes import CHANGE_VERSION
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.solutions import solution_file
from avsbench_harness.files import sha256_file
from avsbench_harness.launch.records import score_entry
from avsbench_harness.results.record import DataEntry
from avsbench_harness.results.robustness import (
    ConditionEntry,
    EstimateEntry,
    RobustnessRecord,
    SNREntry,
)
from avsbench_harness.results.robustness_tables import CLASS_COLUMNS, area_columns
from avsbench_harness.robustness.clip_values import ClipValues, clip_values
from avsbench_harness.robustness.conditions import CLEAN, CONDITIONS
from avsbench_harness.robustness.metrics import (
    Estimate,
    class_rates,
    condition_metrics,
    pia_curve,
    snr_area,
)
from avsbench_harness.robustness.pairs import Pairs
from avsbench_harness.scoring import Scores, compare, score_submission
from avsbench_harness.submission import read_solution, read_submission
from avsbench_harness.tasks import Split


def build_record(
    run: Run, split: Split, files: Mapping[str, Path], unavailable: Mapping[str, str]
) -> tuple[RobustnessRecord, pd.DataFrame, pd.DataFrame | None]:
    """Score submissions under several conditions on the clips that all conditions have.

    Args:
        run: the run.
        split: the split.
        files: the submission of each condition, ``clean`` among them.
        unavailable: the conditions that were asked for and are not available, with the reasons.

    Returns:
        The record, its per-clip table and, for avss, its per-class table.
    """
    pairs = {
        name: make_pairs(run.dataset, split)
        for name in files
        if (make_pairs := CONDITIONS[name].pairs) is not None
    }
    # Without swapped audio too, so that a record can be extended by it.
    swaps = next(make for condition in CONDITIONS.values() if (make := condition.pairs) is not None)
    kept = set(swaps(run.dataset, split).sources) or None
    with ExitStack() as stack:
        truth = stack.enter_context(read_solution(solution_file(run.dataset, split)))
        opened = {name: stack.enter_context(read_submission(file)) for name, file in files.items()}
        scores = {name: score_submission(one, truth, clips=kept) for name, one in opened.items()}
        clips = scores[CLEAN].clips
        values = clip_values(opened, opened[CLEAN], truth, clips)
        left_out = [clip for clip in truth.clips if clip not in set(clips)]
    record = RobustnessRecord(
        run_id=run.id,
        spec_hash=run.spec.hash,
        task=run.task.name,
        data=DataEntry(
            name=run.dataset.name,
            split=split,
            synthetic=run.dataset.synthetic,
            solution=truth.fingerprint,
            fingerprint=run.spec.data.fingerprint,
        ),
        left_out=left_out,
        conditions=[_entry(name, files[name], scores, values[name], pairs.get(name)) for name in files],
        unavailable=dict(unavailable),
        snr=_snr_entry(scores),
    )
    return record, _clip_table(run, scores, values, pairs), _class_table(scores, values)


def _entry(
    name: str, file: Path, scores: Mapping[str, Scores], values: ClipValues, pairs: Pairs | None
) -> ConditionEntry:
    condition = CONDITIONS[name]
    clean = name == CLEAN
    return ConditionEntry(
        condition=name,
        submission_sha256=sha256_file(file),
        score=score_entry(scores[name]),
        pairs=None if pairs is None else pairs.fingerprint,
        gain=None if clean else _gains(scores[CLEAN], scores[name]),
        sensitivity=None if clean else float(1 - values.overlaps.mean()),
        version=None if condition.kind is None else CHANGE_VERSION,
        metrics={key: _estimate(one) for key, one in condition_metrics(condition, values).items()},
        pia=pia_curve(values).tolist() if condition.negative else None,
        class_fpr=class_rates(values),
    )


def _estimate(found: Estimate) -> EstimateEntry:
    return EstimateEntry(value=found.value, interval=found.interval)


def _gains(clean: Scores, other: Scores) -> dict[str, EstimateEntry]:
    return {
        one.metric: EstimateEntry(value=one.difference, interval=one.interval)
        for one in compare(clean, other).differences
    }


def _snr_entry(scores: Mapping[str, Scores]) -> SNREntry | None:
    """The curve over the mixtures, ``None`` with fewer than two."""
    snrs = {CONDITIONS[name].snr: one.tally for name, one in scores.items()}
    tables = {snr: (tally.sums, tally.reduce) for snr, tally in snrs.items() if snr is not None}
    if len(tables) < 2:
        return None
    metric = scores[CLEAN].main[0]
    curve, area = snr_area(tables, metric)
    return SNREntry(metric=metric, snrs=sorted(tables), values=curve, area=_estimate(area))


def _clip_table(
    run: Run, scores: Mapping[str, Scores], values: Mapping[str, ClipValues], pairs: Mapping[str, Pairs]
) -> pd.DataFrame:
    """The per-clip table of all conditions."""
    parts = []
    for name, one in scores.items():
        table = one.per_clip.copy()
        sources = dict(pairs[name].sources) if name in pairs else {}
        table.insert(0, "condition", name)
        table.insert(2, "source", [sources.get(clip, clip) for clip in one.clips])
        table["overlap"] = np.full(len(table), np.nan) if name == CLEAN else values[name].overlaps
        areas = pd.DataFrame(values[name].areas, columns=area_columns(run.task))
        parts.append(pd.concat([table, areas], axis=1))
    return pd.concat(parts, ignore_index=True)


def _class_table(scores: Mapping[str, Scores], values: Mapping[str, ClipValues]) -> pd.DataFrame | None:
    """The sums per clip and class of all conditions; ``None`` for binary tasks."""
    parts = []
    for name, one in scores.items():
        table, areas = one.per_clip_class, values[name].classes
        if table is None or areas is None:
            return None
        rows, classes = pd.Index(one.clips).get_indexer(pd.Index(table["clip"])), table["class"].to_numpy()
        columns = zip(CLASS_COLUMNS, (areas.wrong, areas.truth), strict=True)
        extra = {column: found[rows, classes] for column, found in columns}
        parts.append(table.assign(condition=name, **extra))
    return pd.concat(parts, ignore_index=True)
