from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from pathlib import Path

import pytest
from filelock import FileLock

from avsbench_harness.engine import train as engine
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.spec_hash import spec_hash
from avsbench_harness.errors import AvsbError, Interrupted, MissingDataError, UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.launch.execute import execute
from avsbench_harness.tracking.json_log import read_log
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


def without_times(run: Run) -> list[dict[str, object]]:
    """The training log without the values that differ between repetitions."""
    return read_log(run.folder / "log.jsonl", measured=False)


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
    assert without_times(parts) == without_times(whole)
    plain = planned(tmp_path / "plain", "validation.every_steps=2", "options.width=4")
    engine.train(plain)
    assert sha256_file(plain.weights_file) != sha256_file(whole.weights_file)


def test_the_log_has_learning_rate_gradient_norm_and_times(planned, tmp_path: Path) -> None:
    schedule = ("iterations=4", "schedule={name: poly, power: 1.0}", "optimizer.lr=0.008")
    run = planned(tmp_path, *schedule, "batch_size=2")
    engine.train(run)
    lines = read_log(run.folder / "log.jsonl")
    steps = [line for line in lines if "loss" in line]
    assert [line["lr"] for line in steps] == pytest.approx([0.008, 0.006, 0.004, 0.002])
    assert all(line["gradient_norm"] > 0 for line in steps)
    assert all({"time", "clips_per_second", "memory_gib"} == line["measured"].keys() for line in steps)
    times = [line["measured"]["time"] for line in lines]
    assert times == sorted(times)
    assert abs(times[-1] - time.time()) < 60


@pytest.mark.parametrize("patience", [1, 2])
def test_early_stopping(planned, tmp_path: Path, monkeypatch, patience: int) -> None:
    """The best value is that of the second validation; the interrupted run stops at the same step."""
    values = [0.1, 0.3, 0.3, 0.2, 0.1, 0.1]
    real = engine.validate

    def validate(run, *arguments):
        metrics, images = real(run, *arguments)
        step = len(read_log(run.folder / "log.jsonl"))  # 2 steps and a validation per epoch
        return {**metrics, "J": 0.9, "F": values[step // 3]}, images

    monkeypatch.setattr(engine, "validate", validate)
    wanted = ("epochs=6", f"early_stopping={{patience: {patience}, metric: F}}", "batch_size=2")
    run = planned(tmp_path / "whole", *wanted)
    summary = engine.train(run)
    assert summary.steps == 2 * (2 + patience)
    assert [validation.metrics["F"] for validation in summary.validations] == values[: 2 + patience]
    assert summary.selected_step == 2  # by J
    parts = planned(tmp_path / "parts", *wanted)
    with monkeypatch.context() as patch:
        stop_after(patch, 3, signal.SIGTERM)
        with pytest.raises(Interrupted):
            engine.train(parts)
    assert engine.train(parts).steps == summary.steps
    assert without_times(parts) == without_times(run)


def test_early_stopping_without_validations_or_with_an_unknown_metric_is_refused(planned, tmp_path) -> None:
    with pytest.raises(
        UsageError, match=r"early_stopping needs validations, and select.mode last makes none"
    ):
        planned(tmp_path, "early_stopping.patience=1", "select.mode=last")
    with pytest.raises(UsageError, match=r"Unknown metric of the recipe's early_stopping 'j'"):
        planned(tmp_path, "early_stopping={patience: 1, metric: j}")
    with pytest.raises(UsageError, match="early_stopping.patience"):
        planned(tmp_path, "early_stopping.patience=0")


def test_the_id_of_a_run_without_early_stopping_is_as_before_the_key(planned, tmp_path: Path) -> None:
    run = planned(tmp_path)
    values = run.spec.model_dump(mode="json")
    assert values["recipe"].pop("early_stopping") is None
    assert spec_hash(values) == run.spec.hash
    assert planned(tmp_path, "early_stopping.patience=1").id != run.id


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
