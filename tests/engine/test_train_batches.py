"""Partial batches, the last validation and the protocol of the selection, through whole trainings."""

from __future__ import annotations

import itertools
import json
import logging
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from avsbench_harness.data.epochs import generator
from avsbench_harness.engine import train as engine
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import Interrupted, UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.launch.check_plan import metric_names
from avsbench_harness.method import TrainingSummary
from avsbench_harness.tasks import S4

from .test_acceleration import SPLITTABLE, losses
from .test_train import stop_after, without_times

Train = Callable[[Run], tuple[TrainingSummary, list[list[str]]]]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Train:
    """Train a run; returns its summary and the ids of the clips of every step."""
    real = engine.Trainer._step

    def run_and_note(run: Run) -> tuple[TrainingSummary, list[list[str]]]:
        seen: list[list[str]] = []

        def step(self, batch, ids):
            seen.append(ids)
            assert len(batch.images) == len(ids)
            return real(self, batch, ids)

        with monkeypatch.context() as patch:
            patch.setattr(engine.Trainer, "_step", step)
            return engine.train(run), seen

    return run_and_note


def orders(run: Run, epochs: int) -> list[list[str]]:
    """The ids of the training clips in the order of each epoch."""
    clips = run.dataset.clips("train")
    assert len(clips) == 4
    permutations = [generator(run.spec.seed, epoch, "order").permutation(4) for epoch in range(epochs)]
    return [[clips[index].id for index in order] for order in permutations]


def test_partial_batches_are_kept_dropped_or_filled(planned, tmp_path: Path, train: Train) -> None:
    """Three epochs of four clips in batches of three."""
    steps = {}
    for partial in ("keep", "drop", "wrap"):
        run = planned(tmp_path / partial, "batch_size=3", f"partial_batches={partial}")
        summary, steps[partial] = train(run)
        assert summary.steps == len(steps[partial])
        assert summary.clips_per_second is not None
        clips = sum(map(len, steps[partial]))
        assert summary.clips_per_second * summary.seconds == pytest.approx(clips)
        # Validated after every epoch; wrapped, epochs of 4/3 batches end in steps 2 and 3, and with step 4.
        ends = {"keep": [2, 4, 6], "drop": [1, 2, 3], "wrap": [2, 3, 4]}[partial]
        assert [validation.step for validation in summary.validations] == ends
    one, two, three = orders(run, 3)
    assert steps["keep"] == [one[:3], one[3:], two[:3], two[3:], three[:3], three[3:]]
    assert steps["drop"] == [one[:3], two[:3], three[:3]]
    chain = list(itertools.chain(one, two, three))
    assert steps["wrap"] == [chain[start : start + 3] for start in range(0, 12, 3)]


@pytest.mark.parametrize("partial", ["drop", "wrap"])
def test_an_interrupted_run_is_bitwise_reproducible(
    planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partial: str
) -> None:
    """Interrupted after a batch that belongs to two epochs, and where the backbone is unfrozen."""
    wanted = ("options.width=4", "batch_size=3", f"partial_batches={partial}", "iterations=7")
    whole, parts = (planned(tmp_path / name, *wanted) for name in ("whole", "parts"))
    engine.train(whole)
    for steps in (2, 1, 2):
        with monkeypatch.context() as patch:
            stop_after(patch, steps, signal.SIGTERM)
            with pytest.raises(Interrupted):
                engine.train(parts)
    engine.train(parts)
    assert sha256_file(parts.weights_file) == sha256_file(whole.weights_file)
    assert without_times(parts) == without_times(whole)


def test_micro_batches_of_filled_batches(planned, tmp_path: Path) -> None:
    whole = planned(tmp_path, *SPLITTABLE, "partial_batches=wrap")
    engine.train(whole)
    split = planned(tmp_path, *SPLITTABLE, "partial_batches=wrap", "accumulate=2")
    engine.train(split)
    assert losses(split) == pytest.approx(losses(whole), rel=1e-5)


def test_dropping_the_only_batch_is_refused(planned, tmp_path: Path) -> None:
    run = planned(tmp_path, "batch_size=5", "partial_batches=drop")
    with pytest.raises(UsageError, match="leaves no batch, as batch_size is 5 and there are 4"):
        engine.train(run)


def test_the_last_epoch_is_validated_unless_the_recipe_says_otherwise(planned, tmp_path: Path) -> None:
    rule = ("epochs=4", "validation.every=2", "validation.first=1")
    default = engine.train(planned(tmp_path, *rule))
    published = engine.train(planned(tmp_path, *rule, "validation.last=false"))
    assert [validation.step for validation in default.validations] == [2, 6, 8]
    assert [validation.step for validation in published.validations] == [2, 6]
    assert published.steps == 8
    assert published.selected_step in (2, 6)


def test_without_any_validation_the_last_weights_are_selected(planned, tmp_path: Path, caplog) -> None:
    run = planned(tmp_path, "epochs=2", "validation.first=3", "validation.last=false")
    with caplog.at_level(logging.WARNING):
        summary = engine.train(run)
    assert (summary.validations, summary.selected_step) == ([], 4)
    assert "No validation was due, so that the last weights are selected." in caplog.text


def test_another_protocol_selects(planned, tmp_path: Path) -> None:
    run = planned(tmp_path, "epochs=1", "select={protocol: davis, metric: J}")
    summary = engine.train(run)
    (line,) = (
        line for line in map(json.loads, (run.folder / "log.jsonl").read_text().splitlines()) if "val" in line
    )
    assert set(line["val"]) == set(metric_names(S4, "davis")) != set(metric_names(S4))
    assert summary.validations[0].metrics == line["val"]
    with pytest.raises(UsageError, match="names the protocol 'semantic/1', which does not score s4"):
        planned(tmp_path, "select.protocol=semantic/1")
    with pytest.raises(UsageError, match="Unknown metric of the recipe's select 'F_half'"):
        planned(tmp_path, "select={protocol: davis, metric: F_half}")
