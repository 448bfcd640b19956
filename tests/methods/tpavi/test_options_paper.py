"""TPAVI as in the paper: options and recipe."""

from __future__ import annotations

from typing import Any

import pytest
from avsbench_methods.tpavi import TPAVI
from avsbench_methods.tpavi.options import PAPER, Options

from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.resolve import resolve
from avsbench_harness.tasks import MS3, S4, TASKS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "none", "avm": "av"}, "with fusion: none no level has audio"),
        ({"fusion": "none", "window": 5}, "window has no effect with fusion: none"),
        ({"fusion": "add", "window": 5}, "window has no effect with fusion: add"),
        ({"fusion_stages": (3, 4), "avm": "av"}, "avm_stages has level 1, which has no audio"),
    ],
)
def test_contradicting_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Options.of(options, MS3, "paper")
    assert message in str(caught.value)


def test_the_variant_is_a_set_of_defaults() -> None:
    for task in TASKS.values():
        chosen = Options.of({}, task, "paper")
        assert {name: getattr(chosen, name) for name in PAPER} == PAPER
        assert chosen.avm == ("none" if task is S4 else "av")
        given = {name: value for name, value in PAPER.items() if not name.startswith(("avm_", "vv_"))}
        assert Options.of(given, task, "released").window is None
    with pytest.raises(UsageError, match="variant of tpavi 'published'"):
        TPAVI().build(S4, "r50", variant="published")


@pytest.mark.parametrize(("task", "epochs"), [("s4", 15), ("ms3", 30), ("avss", 60)])
def test_recipe(task: str, epochs: int) -> None:
    recipe = resolve(TPAVI(), TASKS[task], "pvt", variant="paper")
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer.lr) == (epochs, 4, 1e-4)
    assert "arXiv 2207.05042" in recipe.source
    assert recipe.backbone.drop_path_rate == 0.1
