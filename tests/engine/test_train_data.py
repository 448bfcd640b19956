"""Inputs of training and validation: pseudo-masks, padded frames, and inputs loaded once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avsbench_harness.data import propagate
from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.loader import normalise
from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.engine import predict as prediction
from avsbench_harness.engine import train as engine
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.training_set import training_set
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.launch.execute import execute
from avsbench_harness.launch.records import notes
from avsbench_harness.submission import read_submission
from avsbench_harness.tasks import AVSS, MS3, S4, SPLITS


def log(run: Run) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]


def test_validation_loads_its_inputs_once(planned, tmp_path: Path, monkeypatch) -> None:
    asked = []
    real = prediction.audio_inputs
    monkeypatch.setattr(
        prediction, "audio_inputs", lambda run, split: asked.append(split) or real(run, split)
    )
    checkpoint = engine.train(planned(tmp_path, "epochs=3"))
    assert len(checkpoint.validations) == 3
    assert asked == ["val"]
    engine.train(planned(tmp_path, "select.mode=last"))
    assert asked == ["val"]


def test_diagnostics_are_logged(planned, tmp_path: Path, monkeypatch) -> None:
    run = planned(tmp_path, "iterations=2")
    kind = type(run.build_model(pretrained=False))
    monkeypatch.setattr(kind, "diagnostics", lambda self: {"steps_seen": float(self.steps)})
    engine.train(run)
    steps = [line for line in log(run) if "loss" in line]
    assert [line["steps_seen"] for line in steps] == [1.0, 2.0]
    assert all(line["loss"] == line["bce"] for line in steps)


def test_training_with_pseudo_masks_is_recorded(planned, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(propagate.FLOWS, "ilk", lambda one, _: np.zeros((2, *one.shape), np.float32))
    run = planned(tmp_path, "supplement=ilk", "iterations=2")
    with pytest.raises(MissingDataError, match="avsb data propagate .* --flow ilk` makes them"):
        engine.train(run)
    propagate.propagate(run.dataset, "ilk", jobs=1)
    seen = []
    real = engine.Trainer._step

    def step(self, batch, ids):
        seen.append(batch.annotated_frames().all().item())
        return real(self, batch, ids)

    monkeypatch.setattr(engine.Trainer, "_step", step)
    record = execute(run)
    assert seen == [True, True]
    assert "Training frames without masks were given pseudo-masks (supplement: ilk)." in record.notes
    seen.clear()
    plain = planned(tmp_path, "iterations=2")
    assert plain.id != run.id
    assert not any("pseudo-masks" in note for note in execute(plain).notes)
    assert seen == [False, False]


def test_s4_clips_are_added_to_ms3_training(planned, tmp_path: Path, real_s4: Path, monkeypatch) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(propagate.FLOWS, "ilk", lambda one, _: np.zeros((2, *one.shape), np.float32))
    root = tmp_path / "both"
    write_synthetic(root, MS3, (3, 1, 1), seed=0)
    shutil.copytree(real_s4, root, dirs_exist_ok=True)
    run = planned(tmp_path, "supplement=ilk", "iterations=1", "batch_size=16", data=root, task="ms3")
    single = open_dataset(root, S4)
    assert run.spec.data.supplement == single.fingerprint()
    shutil.rmtree(tmp_path / "cache" / "supplements")  # which were made on the way: the set is synthetic
    with pytest.raises(MissingDataError, match="avsb data propagate"):
        engine.train(run)
    propagate.propagate(single, "ilk", jobs=1)
    seen = []
    real = engine.Trainer._step

    def step(self, batch, ids):
        seen.extend(ids)
        assert batch.annotated_frames().all()
        return real(self, batch, ids)

    monkeypatch.setattr(engine.Trainer, "_step", step)
    engine.train(run)
    assert sum(name.startswith("s4/") for name in seen) == len(single.clips("train"))
    assert len(seen) == len(set(seen)) == len(single.clips("train")) + 3


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("supplement=tvl", "Unknown source of pseudo-masks 'tvl'. Did you mean 'tvl1'"),
        ("augment.outside=ignore", "tiny does not support ignored pixels; leave it out"),
    ],
)
def test_options_without_effect_are_refused_before_training(
    planned, tmp_path: Path, assignment: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        planned(tmp_path, assignment)


def test_padding_is_removed_before_resizing(planned, tmp_path: Path, real_s4: Path) -> None:
    """A system that returns the red channel reproduces the frames, wide ones included."""
    root = tmp_path / "wide"
    shutil.copytree(real_s4, root)
    for path in root.rglob("visual_frames/**/*.png"):
        picture = np.zeros((60, 120, 3), np.uint8)
        picture[:30, :60, 0] = 255
        Image.fromarray(picture).save(path)
    run = planned(tmp_path, "fit=pad", "train_fit=pad", data=root)

    class Mirror(torch.nn.Module):
        def predict(self, batch):
            return (batch.images[:, :, 0] > 1).float()

    path = tmp_path / "out.npz"
    clips = prediction.evaluation_clips(run, "test")
    assert clips.content(0) == (32, 16)
    prediction.write_predictions(run, Mirror(), "test", clips, path, engine.StopRequest())
    with read_submission(path) as submission:
        mask = np.asarray(submission.read(clips.clips[0].id))[0] / 255
    expected = np.zeros((224, 224))
    expected[:112, :112] = 1
    # Only the border of the square, enlarged sevenfold and fourteenfold, is blurred.
    assert (abs(mask - expected) > 0.5).mean() < 0.01
    assert prediction.evaluation_clips(planned(tmp_path, data=root), "test").content(0) == (32, 32)
    assert engine.train(run).steps


def test_processed_frames_are_read_if_all_are_there(planned, tmp_path: Path) -> None:
    """COMBO's own preprocessing of AVSS; without its files the frames are resized, and the record says so."""
    write_synthetic(tmp_path / "data", AVSS, (2, 1, 1), 0, kinds=2)

    def plan() -> Run:
        made: Run = planned(tmp_path, "processed_frames=true", data=tmp_path / "data", task="avss")
        return made

    original = plan()
    assert original.spec.data.processed is None
    (note,) = (note for note in notes(original.spec) if "processed" in note)
    assert note == "The frames were resized from the original ones, as processed_frames were missing."
    for split in SPLITS:
        for clip in original.dataset.clips(split):
            for frame in clip.frames:
                path = frame.parents[1] / "processed_frames" / frame.name
                path.parent.mkdir(exist_ok=True)
                Image.new("RGB", (224, 224), (9, 99, 199)).save(path, quality=95)

    run = plan()
    assert run.id != original.id
    assert run.spec.data.fingerprint == original.spec.data.fingerprint
    assert not any("processed" in note for note in notes(run.spec))
    blue = normalise(torch.tensor([9, 99, 199], dtype=torch.uint8).view(1, 3, 1, 1)).view(3, 1, 1)
    training, validation = training_set(run), prediction.evaluation_clips(run, "val")
    for sample in (training[0, 0], validation[0, 0]):
        assert (sample.images[sample.valid] - blue).abs().max() < 0.05
        assert sample.masks.any()
    assert (prediction.evaluation_clips(original, "val")[0, 0].images[0] - blue).abs().max() > 0.5
    with pytest.raises(UsageError, match="fit and train_fit cannot be pad"):
        planned(tmp_path, "processed_frames=true", "fit=pad", data=tmp_path / "data", task="avss")
