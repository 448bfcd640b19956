"""Runs with ``backbone.cache`` compute the maps of the frozen backbone once."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from avsbench_harness.engine import cache_features as module
from avsbench_harness.engine.interrupt import StopRequest
from avsbench_harness.engine.predict import evaluation_clips, predict
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.system import build_system
from avsbench_harness.engine.train import Trainer, train
from avsbench_harness.engine.training_set import training_set
from avsbench_harness.errors import AvsbError, Interrupted, UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.nn.model import Model

FROZEN = ("backbone.freeze_epochs=all", "backbone.freeze_norm=true", "augment.flip=0.5", "options.width=4")
CACHED = (*FROZEN, "backbone.cache=true")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of frames that backbones computed."""
    counts: list[int] = []
    real = Model.maps

    def maps(self: Model, batch, frames: Tensor, source: str = "images") -> list[Tensor]:
        if source not in batch.features:
            counts.append(int(frames.sum()))
        return real(self, batch, frames, source)

    monkeypatch.setattr(Model, "maps", maps)
    return counts


def losses(run: Run) -> list[float]:
    lines = map(json.loads, (run.folder / "log.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def test_training_and_prediction_are_those_of_the_computed_backbone(
    planned, tmp_path: Path, encoded: list[int]
) -> None:
    plain, cached = planned(tmp_path / "plain", *FROZEN), planned(tmp_path / "cached", *CACHED)
    train(plain)
    assert len(encoded) > 10
    encoded.clear()
    train(cached)
    assert len(encoded) == 2  # System.check_predict with more contrast, and the number of multiplications
    np.testing.assert_allclose(losses(cached), losses(plain), rtol=1e-5)
    predict(plain, "val")
    encoded.clear()
    predict(cached, "val")
    assert not encoded


def test_flipped_clips_have_the_maps_of_flipped_images(planned, tmp_path: Path) -> None:
    run = planned(tmp_path, *CACHED)
    trainer = Trainer(run, training_set(run), StopRequest())
    model, dataset = trainer.system.model.eval(), trainer.dataset
    seen = set()
    for epoch in range(4):
        for index in range(len(dataset)):
            sample = dataset[index, epoch]
            valid = sample.valid
            with torch.no_grad():
                (wanted,) = model.encode(sample.images[valid])
            (found,) = sample.features["images"]
            assert_close(found[valid], wanted, rtol=1e-5, atol=1e-5)
            assert not found[~valid].any()
            plain = dataset.source.read(index)
            seen.add(bool((sample.masks[valid] == plain.masks).all()))
    assert seen == {True, False}


def test_only_what_is_missing_is_computed(planned, tmp_path: Path, folder: Path, monkeypatch) -> None:
    train(planned(tmp_path / "one", *CACHED, "augment.flip=0"))
    monkeypatch.setattr(module, "_fill", None)  # nothing is left to compute
    train(planned(tmp_path / "two", *CACHED, "augment.flip=0", "optimizer.lr=1.0e-3"))
    assert len(list(folder.iterdir())) == 2  # train and val


def test_other_weights_of_the_backbone_have_other_maps(planned, tmp_path: Path, folder: Path) -> None:
    """Random weights of another seed; nothing that is stored is used."""
    for seed in (0, 1):
        run = planned(tmp_path / str(seed), *CACHED, seed=seed)
        plain = planned(tmp_path / f"plain-{seed}", *FROZEN, seed=seed)
        train(run)
        train(plain)
        np.testing.assert_allclose(losses(run), losses(plain), rtol=1e-5)
    assert len(list(folder.iterdir())) == 4


def test_an_interrupted_run_is_bitwise_reproducible(planned, tmp_path: Path, monkeypatch) -> None:
    whole, parts = planned(tmp_path / "whole", *CACHED), planned(tmp_path / "parts", *CACHED)
    train(whole)
    real, done = Trainer._step, 0

    def step(self, batch, ids):
        nonlocal done
        done += 1
        if done == 3:
            self.stop.signal = signal.SIGTERM
        return real(self, batch, ids)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", step)
        with pytest.raises(Interrupted):
            train(parts)
    train(parts)
    assert sha256_file(parts.weights_file) == sha256_file(whole.weights_file)


def test_a_full_cache_computes_the_backbone_in_every_step(
    planned, tmp_path: Path, monkeypatch, encoded: list[int], caplog
) -> None:
    monkeypatch.setattr(module.CachedFeatures, "make_room", lambda self, frames: "There is no room.")
    run, plain = planned(tmp_path / "run", *CACHED), planned(tmp_path / "plain", *FROZEN)
    train(run)
    assert len(encoded) > 10
    assert "There is no room. Until then the backbone is computed in every step." in caplog.text
    train(plain)
    assert losses(run) == losses(plain)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ("backbone.cache=true",),
            "needs a frozen backbone: set backbone.freeze_epochs to all",
        ),
        (
            (*CACHED, "augment={flip: 0.5, affine: {rotation: 20}}"),
            "backbone.cache holds the maps of the plain and the flipped clips",
        ),
    ],
)
def test_recipes_that_contradict_the_cache_are_refused(
    planned, tmp_path: Path, values: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        planned(tmp_path, *values)


def test_a_network_without_maps_is_refused(planned, tmp_path: Path, monkeypatch) -> None:
    run = planned(tmp_path, *CACHED)
    model = build_system(run, pretrained=False).model
    monkeypatch.setattr(type(model), "encode", lambda self, images, source="images": [images.mean()])
    with pytest.raises(AvsbError, match="needs a network whose `encode` gives maps"):
        module.cache_features(run, model, evaluation_clips(run, "val"), "val")
