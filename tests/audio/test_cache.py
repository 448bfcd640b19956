from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.data.cache import ArrayCache, array_key


@pytest.fixture
def store(tmp_path: Path) -> ArrayCache:
    return ArrayCache(tmp_path / "arrays", (2, 3))


KEY = array_key(sound="abc", version=1)
VALUE = np.arange(6, dtype=np.float32).reshape(2, 3)


def _never() -> np.ndarray:
    raise AssertionError("computed although it is stored")


def test_computed_once(store: ArrayCache):
    np.testing.assert_array_equal(store.get(KEY, lambda: VALUE), VALUE)
    np.testing.assert_array_equal(store.get(KEY, _never), VALUE)
    np.testing.assert_array_equal(np.load(store.path(KEY)), VALUE)  # an ordinary .npy for other tools


def test_keys_differ_by_every_part():
    assert len({KEY, array_key(sound="abc", version=2), array_key(sound="abd", version=1)}) == 3
    assert array_key(version=1, sound="abc") == KEY


@pytest.mark.parametrize("position", [0, 30, 130, -40, -1])
def test_a_flipped_bit_is_found_and_mended(store: ArrayCache, position: int):
    store.store(KEY, VALUE)
    content = bytearray(store.path(KEY).read_bytes())
    content[position] ^= 1
    store.path(KEY).write_bytes(content)
    assert store.load(KEY) is None
    np.testing.assert_array_equal(store.get(KEY, lambda: VALUE), VALUE)
    np.testing.assert_array_equal(store.get(KEY, _never), VALUE)


@pytest.mark.parametrize("length", [0, 10, 100, 170])
def test_a_file_cut_short_is_found(store: ArrayCache, length: int):
    store.store(KEY, VALUE)
    store.path(KEY).write_bytes(store.path(KEY).read_bytes()[:length])
    assert store.load(KEY) is None


def test_another_shape_or_type_is_refused(store: ArrayCache):
    with pytest.raises(ValueError, match="expected float32"):
        store.store(KEY, VALUE[:1])
    with pytest.raises(ValueError, match="expected float32"):
        store.store(KEY, VALUE.astype(np.float64))
    assert not store.path(KEY).exists()
    ArrayCache(store.folder, (6,)).store(KEY, VALUE.ravel())
    assert store.load(KEY) is None


def test_a_failed_computation_stores_nothing(store: ArrayCache):
    with pytest.raises(AssertionError, match="computed"):
        store.get(KEY, _never)
    assert not list(store.folder.rglob("*.npy"))
