"""The health report of a short training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avsbench_harness.analysis.health_tables import attention_table, module_table, step_table
from avsbench_harness.analysis.training_health import (
    StepFacts,
    TrainingHealth,
    observed_steps,
    training_health,
)
from avsbench_harness.engine.train import train
from avsbench_harness.errors import AvsbError, UsageError
from avsbench_harness.weights.spec import WeightsSpec


@pytest.mark.parametrize(
    ("count", "steps"),
    [(1, [1]), (7, [1, 7]), (10, [1, 10]), (20, [1, 10, 20]), (100, [1, 10, 100]), (250, [1, 10, 100, 250])],
)
def test_powers_of_ten_and_the_last_step_are_observed(count: int, steps: list[int]) -> None:
    assert observed_steps(count) == steps


def test_the_steps_are_those_of_the_training(planned, tmp_path: Path) -> None:
    """Over an epoch's end, with dropout and clipping: the losses are equal to the log's."""
    run = planned(tmp_path, "iterations=5", "clip_norm=0.1", "select.mode=last")
    health = training_health(run, 5)
    assert not run.folder.exists()
    train(run)
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    logged = {line["step"]: line for line in lines if "loss" in line}
    assert list(health.steps) == [1, 5]
    for number, facts in health.steps.items():
        assert {name: logged[number][name] for name in facts.losses} == facts.losses


def test_gradient_norms_are_those_before_clipping(planned, tmp_path: Path) -> None:
    free = training_health(planned(tmp_path, "select.mode=last"), 1)
    clipped = training_health(planned(tmp_path, "select.mode=last", "clip_norm=1e-3"), 1)
    assert clipped.steps[1].gradient_norm == pytest.approx(free.steps[1].gradient_norm, rel=1e-5)
    assert free.steps[1].gradient_norm > 0.01
    for one, other in zip(free.modules, clipped.modules, strict=True):
        assert one.steps[1].gradient_norm == pytest.approx(other.steps[1].gradient_norm, rel=1e-4)


def test_a_report_is_not_longer_than_the_run(planned, tmp_path: Path) -> None:
    assert list(training_health(planned(tmp_path, "iterations=2"), 100).steps) == [1, 2]


def test_the_frozen_backbone_and_a_warm_up(planned, tmp_path: Path) -> None:
    run = planned(tmp_path, "backbone.freeze_epochs=all", "schedule.warmup_steps=10", "optimizer.lr=1e-3")
    health = training_health(run, 2)
    modules = {module.name: module for module in health.modules}
    assert {name for name, module in modules.items() if module.frozen} == {"backbone.0", "backbone.1"}
    assert [facts.lr_factor for facts in health.steps.values()] == pytest.approx([0.1, 0.2])
    rows = {row[0]: row for row in module_table(health).rows}
    assert set(rows["backbone.0"][2:]) == {"frozen"}
    assert not [warning for warning in health.warnings if "backbone" in warning]


def test_a_loss_that_is_not_finite_is_an_error(planned, tmp_path: Path) -> None:
    with pytest.raises(AvsbError, match=r"not finite in step 2 \(loss nan, bce nan\)"):
        training_health(planned(tmp_path, "options.poison_step=2"), 3)


def test_a_run_with_weights_is_refused(planned, tmp_path: Path) -> None:
    run = planned(tmp_path)
    object.__setattr__(run.spec, "weights", WeightsSpec.model_construct())
    with pytest.raises(UsageError, match="--weights is not trained"):
        training_health(run)


def test_a_diagnostic_that_a_step_lacks_is_not_available_there(planned, tmp_path: Path) -> None:
    health = TrainingHealth(
        planned(tmp_path),
        {1: StepFacts({"loss": 2.0}, 3.0, 1.0, {}), 2: StepFacts({"loss": 1.0}, 3.0, 1.0, {"usage": 5.0})},
        [],
        {},
    )
    assert {row[0]: row[1:] for row in step_table(health).rows}["usage"] == ["n/a", "5"]


def test_tables(planned, tmp_path: Path) -> None:
    health: TrainingHealth = training_health(planned(tmp_path, "optimizer.lr=1.0"), 2)
    steps = {row[0]: row[1:] for row in step_table(health).rows}
    assert steps["learning rate"] == ["1", "1"]
    assert steps["loss"] == [f"{facts.losses['loss']:.4g}" for facts in health.steps.values()]
    modules = module_table(health)
    assert list(modules.headings) == ["module", "weight", "grad 1", "grad 2", "share 2", "ratio 1", "ratio 2"]
    gate = next(row for row in modules.rows if row[0] == "gate")
    assert gate[-1].endswith(" !")
    assert attention_table(health) is None  # the network has no attention
