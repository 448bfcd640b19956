"""The recipe's ``keep``: weights besides the selected ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from avsbench_harness.data.epochs import Epochs
from avsbench_harness.engine.saved_weights import choose_saved, kept_steps, save_weights, saved_steps
from avsbench_harness.engine.train import train
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.method import Validation
from avsbench_harness.recipe.schema import KeepRecipe
from avsbench_harness.weights.tensors import load_tensors

#: Epochs of 10 steps.
EPOCHS = Epochs(20, 2, "keep", 0)
VALUES = [
    Validation(step=10 * k, metrics={"J": value}) for k, value in enumerate((0.1, 0.5, 0.4, 0.5), start=1)
]


@pytest.mark.parametrize(
    ("keep", "step", "expected"),
    [
        ({}, 40, set()),
        ({"last": 1}, 40, {40}),
        ({"last": 2}, 45, {30, 40}),
        ({"every": 2}, 45, {20, 40}),
        ({"every": 3}, 20, set()),
        ({"best": 2}, 40, {20, 40}),
        ({"best": 3}, 40, {20, 30, 40}),
        ({"best": 2}, 20, {10, 20}),
        ({"best": 2, "last": 1, "every": 3}, 40, {20, 30, 40}),
    ],
)
def test_the_rule(keep: dict[str, int], step: int, expected: set[int]) -> None:
    seen = [one for one in VALUES if one.step <= step]
    assert kept_steps(KeepRecipe(**keep), EPOCHS, step, 100, seen, "J") == expected


def test_an_incomplete_last_epoch_counts() -> None:
    assert kept_steps(KeepRecipe(last=1), EPOCHS, 45, 45, [], "J") == {45}


def test_weights_that_are_not_kept_any_more_are_removed(tmp_path: Path) -> None:
    save_weights(tmp_path, {10}, 10, {"a": torch.ones(1)})
    save_weights(tmp_path, {10}, 20, {"a": torch.ones(1)})
    assert saved_steps(tmp_path) == [10]
    save_weights(tmp_path, {20}, 20, {"a": torch.ones(1)})
    assert saved_steps(tmp_path) == [20]


def test_kept_weights_of_a_training_are_predicted(planned, tmp_path: Path) -> None:
    run = planned(tmp_path, "keep.every=1", "epochs=3")
    plain = planned(tmp_path, "epochs=3")
    assert run.id == plain.id  # the same training
    train(run)
    steps = saved_steps(run.folder)
    assert len(steps) == 3
    assert choose_saved(run, "all") == steps
    assert choose_saved(run, str(steps[1])) == [steps[1]]
    selected = load_tensors(run.weights_file)
    equal = [
        all(torch.equal(selected[name], value) for name, value in load_tensors(path).items())
        for path in sorted((run.folder / "saved").iterdir())
    ]
    assert sum(equal) == 1  # the selected weights are those of one epoch
    with pytest.raises(UsageError, match="none of the kept steps"):
        choose_saved(run, "99")


def test_a_run_that_kept_nothing(planned, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"keep\.every=1"):
        choose_saved(planned(tmp_path), "all")
