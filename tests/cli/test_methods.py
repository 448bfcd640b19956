"""`avsb methods NAME`: card, parameters and recipes."""

from __future__ import annotations

import pytest


@pytest.mark.slow
def test_one_method_with_its_parameters_and_recipes(avsb) -> None:
    out = avsb("methods", "tpavi").out
    assert "without VGGish" in out
    assert "140.3" in out
    assert "Recipe full: released, r50, s4" in out
    found = avsb("methods", "tpavi", "--json").json
    assert set(found) == {"name", "card", "sizes", "recipes"}
    assert found["sizes"][0]["parameters"] == 68_157_697
    assert {size["variant"] for size in found["sizes"]} == {"released", "paper"}
    assert len(found["recipes"]) == len(found["sizes"]) == 12
    assert found["recipes"][0]["recipe"]["epochs"] == 15
