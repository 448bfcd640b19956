"""Names of clips are safe in paths, in logs and in submissions."""

from __future__ import annotations

import pytest

from avsbench_harness.data.clip import is_clip_id


@pytest.mark.parametrize(
    "name", ["-a_1", "b.2", "a b", "日本語", "é" * 120, "x" * 128, "%s{0}[b]", "headers"]
)
def test_names_that_clips_may_have(name):
    assert is_clip_id(name)


@pytest.mark.parametrize(
    "name",
    ["", ".a", "..", "a/b", "a\\b", "C:a", "header", " a", "a ", "a\nb", "a\tb", "\x1b[31m", "a\u200bb",
     "a\u202eb", "a\u2028b", "\ud800", "x" * 129, "日" * 81],
)  # fmt: skip
def test_names_that_clips_may_not_have(name):
    assert not is_clip_id(name)
