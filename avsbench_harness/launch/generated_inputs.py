"""Maskiges and pseudo-masks of generated data sets, which are made during the first run that needs them."""

from __future__ import annotations

from avsbench_harness.console import counter
from avsbench_harness.data.avsbench.layout import Dataset, open_dataset
from avsbench_harness.data.maskige import SEGMENTERS, make_maskiges, missing_maskiges
from avsbench_harness.data.propagate import FLOWS, missing_pseudo_masks, propagate
from avsbench_harness.engine.inputs import used_clips
from avsbench_harness.engine.run import Run
from avsbench_harness.tasks import S4, SPLITS

#: Clips below which one process is faster than several.
_FEW = 100


def make_generated_inputs(run: Run) -> None:
    """Make the maskiges and pseudo-masks that a run on generated data reads; others have commands."""
    if run.dataset.synthetic or run.dataset.composed is not None:
        _make_maskiges(run, run.recipe.maskige)
        _make_pseudo_masks(run.dataset, run.recipe.supplement)


def _make_maskiges(run: Run, source: str | None) -> None:
    if source not in SEGMENTERS:
        return
    clips = [clip for split in SPLITS for clip in used_clips(run, split)]
    if missing_maskiges(run.dataset, clips, source):
        with counter("maskiges", len(clips)) as advance:
            make_maskiges(clips, source, jobs=_jobs(len(clips)), progress=advance)


def _make_pseudo_masks(dataset: Dataset, source: str | None) -> None:
    if source not in FLOWS:
        return
    single = dataset if dataset.task is S4 else open_dataset(dataset.root, S4)
    clips = single.clips("train")
    if missing_pseudo_masks(single, clips, source):
        with counter("pseudo-masks", len(clips)) as advance:
            propagate(single, source, jobs=_jobs(len(clips)), progress=advance)


def _jobs(clips: int) -> int | None:
    return 1 if clips < _FEW else None
