from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from avsbench_harness.errors import UsageError
from avsbench_harness.schema import PlainValues, Schema


class Inner(Schema):
    share: float = 0.0


class Example(Schema):
    number: float = 0.0
    count: int | None = None
    flag: bool = False
    pair: tuple[float, float] = (0.0, 0.0)
    path: Path | bool = False
    length: int | Literal["all"] = 1
    inner: Inner = Inner()
    inners: list[Inner] = []
    values: PlainValues = {}


def test_exact_types_lists_for_tuples_and_text_for_paths_are_accepted() -> None:
    values = {"number": 1, "pair": [1, 2.5], "path": "a", "inner": {"share": 1}, "values": {"a": [None, "b"]}}
    found = Example.parse(values, "here")
    assert (found.number, found.pair, found.path, found.inner.share) == (1.0, (1.0, 2.5), Path("a"), 1.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("number", True),
        ("number", "1"),
        ("number", float("nan")),
        ("count", True),
        ("count", 1.0),
        ("count", "1"),
        ("flag", 1),
        ("flag", "yes"),
        ("pair", [True, 1]),
        ("length", "1"),
        ("inner", {"share": True}),
        ("inners", [{"share": "1"}]),
        ("values", {"a": [{"b": float("inf")}]}),
    ],
)
def test_wrong_types_are_not_converted(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"here: '{key}") as error:
        Example.parse({key: value}, "here")
    assert "\n" not in str(error.value)


def test_messages_are_short() -> None:
    for values in ({"x" * 10_000: 1}, {"number": "x" * 10_000}, {"path": {"x" * 1000: []}}):
        with pytest.raises(UsageError) as error:
            Example.parse(values, "here")
        assert len(str(error.value)) < 500


@pytest.mark.parametrize("values", [[], [1], "text", 3, None])
def test_values_that_are_no_mapping_are_refused(values: object) -> None:
    with pytest.raises(UsageError, match=r"^spec\.json is not a spec: expected a JSON object\.$"):
        Schema.parse(values, "spec.json", "a spec")
