"""The inputs of a run besides frames and masks."""

from __future__ import annotations

from pathlib import Path

import pytest

from avsbench_harness.data.maskige import maskige_files
from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.engine.inputs import maskige_inputs, used_clips
from avsbench_harness.engine.interrupt import StopRequest
from avsbench_harness.engine.train import Trainer
from avsbench_harness.engine.training_set import training_set
from avsbench_harness.errors import MissingDataError
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.tasks import S4


def test_a_run_shorter_than_an_epoch_uses_the_clips_of_its_steps(planned, tmp_path: Path) -> None:
    short, whole = (planned(tmp_path, f"iterations={steps}", "batch_size=2") for steps in (1, 50))
    clips, used = short.dataset.clips("train"), used_clips(short, "train")
    assert used_clips(whole, "train") == clips
    assert len(used) == 2 < len(clips)
    read, _ = next(Trainer(short, training_set(short), StopRequest())._rest_of_epoch(0))
    assert {clip.id for clip in used} == set(read)
    assert used_clips(short, "val") == short.dataset.clips("val")


def test_maskiges_are_made_and_needed_for_the_clips_that_are_used(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "data", S4, (4, 1, 1), seed=1, jobs=1)

    def combo(steps: int, check: bool = True):
        changes = (f"iterations={steps}", "batch_size=1")
        return plan(
            Request(
                "combo",
                "resnet10t",
                data=tmp_path / "data",
                preset="smoke",
                assignments=changes,
                out=tmp_path,
                device="cpu",
            ),
            check=check,
        )

    run = combo(2)
    made = {
        clip.id
        for clip in run.dataset.clips("train")
        if all(path.is_file() for path in maskige_files(run.dataset, clip, "felzenszwalb"))
    }
    assert made == {clip.id for clip in used_clips(run, "train")}
    assert len(made) == 2
    assert set(maskige_inputs(run, "train") or ()) == {clip.id for clip in run.dataset.clips("train")}
    with pytest.raises(MissingDataError, match="10 maskiges of the train split are missing"):
        maskige_inputs(combo(4, check=False), "train")
