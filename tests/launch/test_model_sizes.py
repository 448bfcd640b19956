"""Parameter counts and recipes as `avsb methods NAME` prints them."""

from __future__ import annotations

import pytest

from avsbench_harness.errors import UsageError
from avsbench_harness.launch.model_sizes import difference, set_values, sizes, trainings
from avsbench_harness.method import get_method


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backbone", "task", "millions"),
    [
        pytest.param("combo", "r50", "avss", 158.9, marks=pytest.mark.slow),
        # The published 118.6 M are without VGGish, and 11.9 M of them are never used and not kept here.
        pytest.param("catr", "pvt", "s4", 118.6 - 11.9 + 72.1, marks=pytest.mark.slow),
        ("tpavi", "r50", "s4", 140.3),
    ],
)
def test_parameter_counts_with_vggish_are_the_published_ones(
    name: str, backbone: str, task: str, millions: float
) -> None:
    method = get_method(name)
    found = {(size.variant, size.backbone, size.task): size for size in sizes(method)}
    assert len(found) == len(method.variants) * len(method.backbones) * len(method.tasks)
    size = found["released", backbone, task]
    assert size.error == ""
    assert size.with_vggish is not None
    assert size.parameters is not None
    assert size.with_vggish / 1e6 == pytest.approx(millions, abs=0.06)
    assert size.with_vggish - size.parameters == 72_141_184


def test_a_network_that_cannot_be_built_is_listed_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    method = get_method("tpavi")

    def refuse(*_: object, **__: object) -> None:
        raise UsageError("Not with this.")

    monkeypatch.setattr(type(method), "build", refuse)
    assert {(size.parameters, size.error) for size in sizes(method)} == {(None, "Not with this.")}


def test_recipes_are_listed_by_their_differences() -> None:
    found = {(t.variant, t.backbone, t.task): t for t in trainings(get_method("tpavi"))}
    assert found["released", "r50", "s4"].changes == {}
    assert found["released", "pvt", "ms3"].changes == {"backbone": {"drop_path_rate": 0.1}, "epochs": 30}
    stated = set_values(found["released", "r50", "s4"].recipe)
    assert stated["epochs"] == 15
    assert stated["optimizer"] == {"name": "adam", "weight_decay": 0.0}
    assert "precision" not in stated


def test_difference_is_recursive_and_names_removed_keys() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": [1], "e": 0}
    assert difference({"a": {"b": 1, "c": 3}, "d": [1]}, base) == {"a": {"c": 3}, "e": None}
    assert difference(base, base) == {}
