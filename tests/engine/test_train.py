from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
from filelock import FileLock

from avsbench_harness.engine import train as engine
from avsbench_harness.errors import AvsbError, Interrupted, MissingDataError, UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.launch.execute import execute
from avsbench_harness.weights.tensors import load_tensors

AUGMENT = (
    "augment={flip: 0.5, affine: {rotation: 20, scale: [0.5, 1.0]}, scale: {factors: [0.5, 1.0, 2.0]}, "
    "jitter: {per_frame: true}}"
)


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int, number: signal.Signals) -> None:
    """Send this process a signal in the middle of its ``steps``-th optimiser step."""
    real = engine.Trainer._step
    done = 0

    def step(self, batch, ids):
        nonlocal done
        done += 1
        if done == steps:
            os.kill(os.getpid(), number)
        return real(self, batch, ids)

    monkeypatch.setattr(engine.Trainer, "_step", step)


def test_an_interrupted_run_is_bitwise_reproducible(planned, tmp_path: Path, monkeypatch) -> None:
    whole = planned(tmp_path / "whole", "options.width=4")
    engine.train(whole)
    run = planned(tmp_path / "parts", "options.width=4")
    for steps, number, code in ((1, signal.SIGTERM, 143), (3, signal.SIGINT, 130)):
        with monkeypatch.context() as patch:
            stop_after(patch, steps, number)
            with pytest.raises(
                Interrupted, match=f"Stopped by {number.name}. The state after step"
            ) as caught:
                engine.train(run)
        assert caught.value.exit_code == code
        assert not run.weights_file.exists()
    summary = engine.train(run)
    assert sha256_file(run.weights_file) == sha256_file(whole.weights_file)
    assert summary.steps == len(run.dataset.clips("train")) // 2 * 3 + 3 * (
        len(run.dataset.clips("train")) % 2
    )
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if "loss" in line] == list(range(1, summary.steps + 1))
    assert not (run.folder / "checkpoints").exists()


def test_an_interrupted_run_with_all_augmentation_is_bitwise_reproducible(
    planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted inside an epoch, with validations inside epochs."""
    wanted = (AUGMENT, "validation.every_steps=2", "options.width=4")
    whole = planned(tmp_path / "whole", *wanted)
    engine.train(whole)
    parts = planned(tmp_path / "parts", *wanted)
    for steps in (3, 2):
        with monkeypatch.context() as patch:
            stop_after(patch, steps, signal.SIGTERM)
            with pytest.raises(Interrupted):
                engine.train(parts)
    engine.train(parts)
    assert sha256_file(parts.weights_file) == sha256_file(whole.weights_file)
    logs = [(run.folder / "log.jsonl").read_text() for run in (whole, parts)]
    assert logs[0] == logs[1]
    plain = planned(tmp_path / "plain", "validation.every_steps=2", "options.width=4")
    engine.train(plain)
    assert sha256_file(plain.weights_file) != sha256_file(whole.weights_file)


def test_validation_every_few_steps(planned, tmp_path: Path) -> None:
    run = planned(tmp_path, "validation.every_steps=2", "iterations=5")
    summary = engine.train(run)
    assert [validation.step for validation in summary.validations] == [2, 4, 5]
    steps = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "loss" in line] == [1, 2, 3, 4, 5]


def test_a_finished_training_is_not_repeated(planned, tmp_path: Path, monkeypatch) -> None:
    run = planned(tmp_path)
    record = execute(run)
    monkeypatch.setattr(engine.Trainer, "_step", None)
    assert engine.train(run).steps == record.training.steps
    assert execute(run) == record


def test_seeds_give_different_weights(planned, tmp_path: Path) -> None:
    one, two = planned(tmp_path, seed=0), planned(tmp_path, seed=1)
    assert one.id != two.id
    engine.train(one)
    engine.train(two)
    assert sha256_file(one.weights_file) != sha256_file(two.weights_file)


def test_a_loss_that_is_not_finite_names_step_clips_and_checkpoint(planned, tmp_path: Path) -> None:
    first_epoch = -(-len(planned(tmp_path).dataset.clips("train")) // 2)
    run = planned(tmp_path, f"options.poison_step={first_epoch + 1}")
    with pytest.raises(AvsbError) as caught:
        engine.train(run)
    message = str(caught.value)
    assert f"not finite at step {first_epoch + 1} (bce nan) on clips " in message
    assert any(clip.id in message for clip in run.dataset.clips("train"))
    assert f"last good checkpoint is {run.folder / 'checkpoints' / f'step-{first_epoch:08d}'}" in message


def test_one_process_per_run(planned, tmp_path: Path) -> None:
    run = planned(tmp_path)
    run.folder.mkdir(parents=True)
    with FileLock(run.folder / ".lock"), pytest.raises(AvsbError, match="Another process works on"):
        engine.train(run)


def test_the_best_weights_are_kept(planned, tmp_path: Path) -> None:
    run = planned(tmp_path, "epochs=4", "optimizer.lr=0.05")
    summary = engine.train(run)
    scores = [validation.metrics["J"] for validation in summary.validations]
    assert len(scores) == 4
    best = max(range(4), key=lambda index: (scores[index], -index))
    assert summary.selected_step == summary.validations[best].step


def test_sparse_validation_and_selection_of_the_last_weights(planned, tmp_path: Path) -> None:
    rare = engine.train(planned(tmp_path, "epochs=4", "validation.every=2", "validation.first=2"))
    per_epoch = rare.steps // 4
    assert [validation.step for validation in rare.validations] == [2 * per_epoch, 4 * per_epoch]
    last = engine.train(planned(tmp_path, "select.mode=last"))
    assert last.validations == []
    assert last.selected_step == last.steps


def test_iterations_that_end_inside_an_epoch(planned, tmp_path: Path) -> None:
    run = planned(tmp_path, "iterations=1")
    summary = engine.train(run)
    assert summary.steps == 1
    assert [validation.step for validation in summary.validations] == [1]


def test_speed_counts_the_clips_of_small_batches(planned, tmp_path: Path) -> None:
    run = planned(tmp_path, "iterations=5", "batch_size=3")
    assert len(run.dataset.clips("train")) == 4  # two batches an epoch, the second one of a single clip
    done = engine.train(run)
    assert done.clips_per_second * done.seconds == pytest.approx(4 + 4 + 3)


def test_an_unknown_metric_lists_the_known_ones(planned, tmp_path: Path) -> None:
    """At plan time; a spec that was not planned here is refused at the first validation."""
    with pytest.raises(UsageError, match="select 'mIou'. Known: F, .*, J, "):
        planned(tmp_path, "select.metric=mIou")
    run = planned(tmp_path)
    select = run.recipe.select.model_copy(update={"metric": "mIou"})
    recipe = run.recipe.model_copy(update={"select": select})
    run = dataclasses.replace(run, spec=run.spec.model_copy(update={"recipe": recipe}))
    with pytest.raises(AvsbError, match="gives no 'mIou' to select by; it gives J, F"):
        engine.train(run)


def test_weights_hold_model_and_encoder(planned, tmp_path: Path) -> None:
    run = planned(tmp_path)
    engine.train(run)
    names = {name.split(".")[0] for name in load_tensors(run.weights_file)}
    assert names == {"model", "encoder"}


def test_predicting_before_training_is_refused(planned, tmp_path: Path) -> None:
    run = planned(tmp_path)
    with pytest.raises(MissingDataError, match="has no trained weights"):
        run.method.predict(run, "test")


def test_bf16_trains(planned, tmp_path: Path) -> None:
    summary = engine.train(planned(tmp_path, "precision=bf16", "clip_norm=1.0", "iterations=2"))
    assert summary.steps == 2


@pytest.mark.gpu
def test_cuda_trains_stops_and_resumes(planned, tmp_path: Path, monkeypatch) -> None:
    run = dataclasses.replace(planned(tmp_path, "precision=fp16"), device="cuda")
    with monkeypatch.context() as patch:
        stop_after(patch, 2, signal.SIGTERM)
        with pytest.raises(Interrupted):
            engine.train(run)
    assert engine.train(run).device == "cuda"
    assert run.method.predict(run, "test").is_file()
