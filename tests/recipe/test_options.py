"""Build options: defaults of variants, and options that contradict each other or have no effect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self

import pytest
from pydantic import PositiveInt

from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.options import BuildOptions, Unused
from avsbench_harness.tasks import AVSS, S4, Task


class Options(BuildOptions):
    method = "made"
    variant_defaults: ClassVar = {"paper": {"mixer": "none"}}

    mixer: Literal["none", "attention"] = "attention"
    heads: PositiveInt = 8
    depth: PositiveInt | None = None

    def completed(self, task: Task) -> Self:
        return self.model_copy(update={"depth": 2 if task.semantic else 1}) if self.depth is None else self

    def check(self, task: Task) -> None:
        if self.heads == 7:
            raise UsageError("heads: 7")

    def unused(self, task: Task) -> Iterator[Unused]:
        if self.mixer == "none":
            yield ("heads",), "with mixer: none"


def test_given_options_replace_the_variant_s_defaults() -> None:
    assert Options.of({}, S4, "released").mixer == "attention"
    assert Options.of({}, S4, "paper").mixer == "none"
    assert Options.of({"mixer": "attention", "heads": 4}, S4, "paper").heads == 4


def test_open_values_are_completed_by_task() -> None:
    assert Options.of({}, S4, "paper").depth == 1
    assert Options.of({}, AVSS, "paper").depth == 2
    assert Options.of({"depth": 5}, AVSS, "paper").depth == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 4}, "The option heads has no effect with mixer: none; leave it out."),
        ({"head": 4}, "Unknown key 'head' in the options of made. Did you mean 'heads'?"),
        ({"heads": 0}, "the options of made: 'heads' is 0"),
        ({"mixer": "attention", "heads": 7}, "heads: 7"),
        ({"drop_path_rate": 1}, "'drop_path_rate' is 1"),
    ],
)
def test_refused_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Options.of(options, S4, "paper")
    assert message in str(caught.value)


def test_defaults_may_have_no_effect() -> None:
    assert Options.of({}, S4, "paper").heads == 8
