"""Accumulation, memory format, activation checkpointing and compilation do not change the result."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path

import pytest
import torch

from avsbench_harness.engine import metric_buffer, optim
from avsbench_harness.engine import train as engine
from avsbench_harness.engine.acceleration import accelerate, check_compiler, recomputing
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.system import build_system
from avsbench_harness.errors import AvsbError, Interrupted, UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.recipe.schema import BackboneRecipe, Recipe
from avsbench_harness.weights.tensors import load_tensors

from .test_train import stop_after, without_times

#: Without batch statistics and random draws, so that a batch may be split.
SPLITTABLE = (
    "options.dropout=0", "backbone.freeze_norm=true", "backbone.freeze_epochs=0", "iterations=6",
    "batch_size=3", "select.mode=last",
)  # fmt: skip


def losses(run: Run) -> list[float]:
    lines = map(json.loads, (run.folder / "log.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def test_explicit_defaults_do_not_change_the_run(planned, tmp_path: Path) -> None:
    plain = planned(tmp_path)
    assert planned(tmp_path, "accumulate=1", "compile=false").id == plain.id
    changed = planned(tmp_path, "accumulate=2", "channels_last=true")
    assert changed.id != plain.id
    assert Recipe.parse(changed.recipe.to_dict(), "here") == changed.recipe


def test_micro_batches_have_the_losses_of_the_whole_batch(planned, tmp_path: Path) -> None:
    """The last batch of an epoch is smaller; there are at most as many parts as clips."""
    whole = planned(tmp_path, *SPLITTABLE)
    engine.train(whole)
    for parts in (2, 9):
        split = planned(tmp_path, *SPLITTABLE, f"accumulate={parts}")
        engine.train(split)
        assert losses(split) == pytest.approx(losses(whole), rel=1e-5)


def test_memory_format_and_recomputation_resume_bitwise(planned, tmp_path: Path, monkeypatch) -> None:
    plain = planned(tmp_path, *SPLITTABLE)
    engine.train(plain)
    wanted = (*SPLITTABLE, "channels_last=true", "activation_checkpointing=true")
    whole, parts = planned(tmp_path / "whole", *wanted), planned(tmp_path / "parts", *wanted)
    engine.train(whole)
    assert losses(whole) == pytest.approx(losses(plain), rel=1e-4)
    with monkeypatch.context() as patch:
        stop_after(patch, 4, signal.SIGTERM)
        with pytest.raises(Interrupted):
            engine.train(parts)
    engine.train(parts)
    assert sha256_file(parts.weights_file) == sha256_file(whole.weights_file)


def test_activation_checkpointing_updates_batch_statistics_once(planned, tmp_path: Path) -> None:
    """Batch norms of the backbone have the same running statistics with and without it."""
    wanted = ("options.dropout=0", "backbone.freeze_epochs=0", "iterations=3", "select.mode=last")
    runs = [planned(tmp_path, *wanted), planned(tmp_path, *wanted, "activation_checkpointing=true")]
    for run in runs:
        engine.train(run)
    plain, again = (load_tensors(run.weights_file) for run in runs)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(again[f"model.backbone.1.{name}"], plain[f"model.backbone.1.{name}"])
    assert plain["model.backbone.1.num_batches_tracked"] == 3


def test_activation_checkpointing_recomputes(planned, tmp_path: Path) -> None:
    run = planned(tmp_path, "activation_checkpointing=true")
    system = accelerate(build_system(run, pretrained=False), run.recipe)
    calls = []
    system.model.backbone[0].register_forward_hook(lambda *_: calls.append(1))
    maps = system.model.backbone(torch.zeros(1, 3, 32, 32))
    with recomputing(system.model.backbone, run.recipe):
        maps.sum().backward()
    assert len(calls) == 2


def test_a_frozen_backbone_keeps_no_graph(planned, tmp_path: Path) -> None:
    system = build_system(planned(tmp_path), pretrained=False)
    for epoch, learns in ((0, False), (1, True)):
        optim.set_training(system, system.model.backbone, BackboneRecipe(freeze_epochs=1), epoch)
        assert system.model.backbone(torch.zeros(1, 3, 32, 32)).requires_grad == learns


def test_all_buffered_losses_are_logged(planned, tmp_path: Path, monkeypatch) -> None:
    wanted = ("iterations=7", "validation.every_steps=5", "options.width=4")
    each = planned(tmp_path / "each", *wanted)
    engine.train(each)
    monkeypatch.setitem(metric_buffer.INTERVALS, "cpu", 4)
    taken = []
    real = metric_buffer.MetricBuffer.take

    def take(self):
        found = real(self)
        taken.append(len(found))
        return found

    monkeypatch.setattr(metric_buffer.MetricBuffer, "take", take)
    some = planned(tmp_path / "some", *wanted)
    engine.train(some)
    assert without_times(some) == without_times(each)
    assert max(taken) > 1


def test_transfers_depend_on_the_step_alone() -> None:
    """After the first step and every 20; an earlier one for a checkpoint does not change the later ones."""
    due = []
    for early in (0, 13):
        kept = metric_buffer.MetricBuffer("cuda")
        due.append([])
        for step in range(1, 61):
            loss = {"loss": torch.zeros(())}
            kept.add(step, 1, ["clip"], loss, {}, lr=0.1, gradient_norm=torch.ones(()), measured={})
            if kept.due:
                due[-1].append(step)
            if kept.due or step == early:
                kept.take()
    assert due == [[1, 20, 40, 60]] * 2


def test_a_buffered_loss_that_is_not_finite_is_named(planned, tmp_path: Path, monkeypatch) -> None:
    """Later steps were made already; none of them is saved."""
    monkeypatch.setitem(metric_buffer.INTERVALS, "cpu", 100)
    run = planned(tmp_path, "options.poison_step=2", "iterations=40", "batch_size=1")
    with pytest.raises(AvsbError, match=r"not finite at step 2 \(bce nan\) on clips .*no checkpoint yet"):
        engine.train(run)
    assert not list((run.folder / "checkpoints").glob("*"))
    assert losses(run) == [pytest.approx(losses(run)[0])]


def test_compile_without_a_compiler_is_refused(planned, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match="needs a C\\+\\+ compiler, and no-such-compiler is missing"):
        planned(tmp_path, "compile=true")


@pytest.mark.slow
def test_compiled_training_matches(planned, tmp_path: Path) -> None:
    check_compiler("cpu")
    wanted = ("options.dropout=0", "backbone.freeze_epochs=0", "iterations=2", "select.mode=last")
    plain, compiled = planned(tmp_path, *wanted), planned(tmp_path, *wanted, "compile=true")
    engine.train(plain)
    engine.train(compiled)
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)


@pytest.mark.gpu
def test_cuda_trains_with_all_options(planned, tmp_path: Path) -> None:
    wanted = (
        "precision=bf16",
        "channels_last=true",
        "activation_checkpointing=true",
        "accumulate=2",
        "iterations=6",
    )
    run = dataclasses.replace(planned(tmp_path, *wanted), device="cuda")
    assert engine.train(run).steps == 6
    assert len(losses(run)) == 6
