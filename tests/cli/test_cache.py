"""``avsb cache``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.data.cache.store import RECORD_SIZE, ArrayStore, array_key

SIZE = 2_500_000 + RECORD_SIZE


@pytest.fixture(autouse=True)
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArrayStore:
    """Two collections, one of them in use by this process."""
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("AVSB_CACHE_LIMIT", "0.5")
    stores = [ArrayStore(tmp_path / kind / "one") for kind in ("embeddings", "decoded")]
    for store in stores:
        store.store(array_key(n=0), np.zeros(2_500_000, np.uint8))
    return stores[1]


def test_info_lists_collections_and_the_limit(avsb, tmp_path: Path) -> None:
    shown = avsb("cache", "info", "--json").json
    assert (shown["folder"], shown["limit_bytes"], shown["bytes"]) == (str(tmp_path), 500_000_000, 2 * SIZE)
    found = {part["kind"]: (part["name"], part["entries"], part["bytes"], part["in_use"])
             for part in shown["collections"]}  # fmt: skip
    assert found == {"embeddings": ("one", 1, SIZE, False), "decoded": ("one", 1, SIZE, True)}
    text = avsb("cache", "info").out
    assert "embeddings" in text
    assert f"0.01 of at most 0.5 GB used in {tmp_path}" in text


def test_clear_removes_one_kind(avsb, tmp_path: Path) -> None:
    cleared = avsb("cache", "clear", "embeddings")
    assert cleared.code == 0
    assert cleared.out == "collections removed: 1; freed: 2.5 MB\n"
    assert not (tmp_path / "embeddings" / "one").exists()
    assert (tmp_path / "decoded" / "one").exists()


def test_clear_keeps_what_is_in_use(avsb, tmp_path: Path, held: ArrayStore) -> None:
    cleared = avsb("cache", "clear", "--json").json
    assert cleared["freed_bytes"] == SIZE
    assert [part["kind"] for part in cleared["removed"]] == ["embeddings"]
    assert [part["kind"] for part in cleared["in_use"]] == ["decoded"]
    assert f"{held.folder} is in use and was kept" in avsb("cache", "clear").out
    assert held.load(array_key(n=0)) is not None


def test_wrong_input_is_refused(avsb, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = avsb("cache", "clear", "solution")
    assert unknown.code == 2
    assert "Did you mean 'solutions'?" in unknown.err
    monkeypatch.setenv("AVSB_CACHE_LIMIT", "many")
    refused = avsb("cache", "info")
    assert refused.code == 2
    assert "AVSB_CACHE_LIMIT is 'many'" in refused.err
