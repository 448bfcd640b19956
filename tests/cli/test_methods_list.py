"""``avsb methods`` without and with a name."""

from __future__ import annotations

import pytest


@pytest.mark.slow
def test_methods_lists_and_prints_cards(avsb) -> None:
    assert "avsegformer" in avsb("methods").out
    (entry,) = [entry for entry in avsb("methods", "--json").json if entry["name"] == "avsegformer"]
    assert entry["tasks"] == ["s4", "ms3", "avss"]
    assert "AVSegFormer" in avsb("methods", "avsegformer").out
