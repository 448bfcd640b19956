from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.data.cache.arrays import ArrayCache, array_key

Messages = Callable[[], list[str]]

KEY, OTHER = array_key(sound="abc", version=1), array_key(sound="abd", version=1)
VALUE = np.arange(6, dtype=np.float32).reshape(2, 3)
SLOT, ENTRY = 24, 36


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Messages:
    """Messages logged so far."""
    caplog.set_level("INFO", logger="avsbench_harness")
    return lambda: caplog.messages


@pytest.fixture
def store(tmp_path: Path, lines: Messages) -> ArrayCache:
    return ArrayCache(tmp_path / "arrays", (2, 3))


def _never() -> np.ndarray:
    raise AssertionError("computed although it is stored")


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_computed_once(store: ArrayCache, lines: Messages):
    np.testing.assert_array_equal(store.get(KEY, lambda: VALUE), VALUE)
    np.testing.assert_array_equal(store.get(KEY, _never), VALUE)
    store.store(OTHER, VALUE + 1)
    np.testing.assert_array_equal(store.get(KEY, _never), VALUE)
    kept = np.fromfile(store.arrays, np.float32).reshape(2, 2, 3)  # nothing but the values, for other tools
    np.testing.assert_array_equal(kept, [VALUE, VALUE + 1])
    assert not lines()


def test_what_is_read_is_a_copy(store: ArrayCache):
    store.store(KEY, VALUE)
    store.get(KEY, _never)[:] = 0
    np.testing.assert_array_equal(store.get(KEY, _never), VALUE)


def test_keys_differ_by_every_part():
    assert len({KEY, array_key(sound="abc", version=2), array_key(sound="abd", version=1)}) == 3
    assert array_key(version=1, sound="abc") == KEY


@pytest.mark.parametrize("position", [0, 13, 23])
def test_a_flipped_bit_is_found_said_and_mended(store: ArrayCache, lines: Messages, position: int):
    store.store(KEY, VALUE)
    store.store(OTHER, VALUE + 1)
    flip(store.arrays, position)
    assert store.load(KEY) is None
    assert lines() == [f"An array in {store.folder} is damaged; it is computed again."]
    np.testing.assert_array_equal(store.get(KEY, lambda: VALUE), VALUE)
    np.testing.assert_array_equal(store.get(KEY, _never), VALUE)
    np.testing.assert_array_equal(store.get(OTHER, _never), VALUE + 1)
    assert store.arrays.stat().st_size == 2 * SLOT


@pytest.mark.parametrize("position", [0, 31, 32, 35])
@pytest.mark.parametrize("opened_before", [True, False])
def test_a_flipped_bit_of_an_entry(store: ArrayCache, tmp_path: Path, opened_before: bool, position: int):
    store.store(KEY, VALUE)
    store.store(OTHER, VALUE + 1)
    flip(store.keys, position)
    seen = store if opened_before else ArrayCache(tmp_path / "arrays", (2, 3))
    assert seen.load(KEY) is None
    np.testing.assert_array_equal(seen.get(KEY, lambda: VALUE), VALUE)
    np.testing.assert_array_equal(seen.get(KEY, _never), VALUE)
    np.testing.assert_array_equal(seen.get(OTHER, _never), VALUE + 1)


@pytest.mark.parametrize("length", [0, 10, SLOT, SLOT + 10])
def test_arrays_cut_short_are_found(store: ArrayCache, length: int):
    store.store(KEY, VALUE)
    store.store(OTHER, VALUE + 1)
    store.arrays.write_bytes(store.arrays.read_bytes()[:length])
    assert store.load(OTHER) is None
    np.testing.assert_array_equal(store.get(OTHER, lambda: VALUE + 1), VALUE + 1)
    np.testing.assert_array_equal(store.get(KEY, lambda: VALUE), VALUE)


@pytest.mark.parametrize("length", [0, 10, ENTRY, ENTRY + 10])
def test_entries_cut_short_are_found(store: ArrayCache, tmp_path: Path, length: int):
    store.store(KEY, VALUE)
    store.store(OTHER, VALUE + 1)
    store.keys.write_bytes(store.keys.read_bytes()[:length])
    for seen in (store, ArrayCache(tmp_path / "arrays", (2, 3))):
        np.testing.assert_array_equal(seen.get(OTHER, lambda: VALUE + 1), VALUE + 1)
        np.testing.assert_array_equal(seen.get(KEY, lambda: VALUE), VALUE)
    assert store.keys.stat().st_size == 2 * ENTRY


def test_an_emptied_folder_is_filled_again(store: ArrayCache, tmp_path: Path):
    store.store(KEY, VALUE)
    store.store(OTHER, VALUE + 1)
    shutil.rmtree(store.folder)
    another = ArrayCache(tmp_path / "arrays", (2, 3))
    another.store(OTHER, VALUE + 1)  # now where the key that the first still knows was
    another.store(array_key(sound="new"), VALUE + 2)
    np.testing.assert_array_equal(store.get(KEY, lambda: VALUE), VALUE)
    np.testing.assert_array_equal(store.get(OTHER, _never), VALUE + 1)
    np.testing.assert_array_equal(another.get(KEY, _never), VALUE)


def test_another_shape_or_type_is_refused(store: ArrayCache, tmp_path: Path):
    with pytest.raises(ValueError, match="expected float32"):
        store.store(KEY, VALUE[:1])
    with pytest.raises(ValueError, match="expected float32"):
        store.store(KEY, VALUE.astype(np.float64))
    assert not store.folder.exists()
    ArrayCache(tmp_path / "arrays", (6,)).store(KEY, VALUE.ravel())
    assert store.load(KEY) is None


def test_a_failed_computation_stores_nothing(store: ArrayCache):
    with pytest.raises(AssertionError, match="computed"):
        store.get(KEY, _never)
    assert not store.folder.exists()


FILL = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from avsbench_harness.data.cache.arrays import ArrayCache, array_key
cache = ArrayCache(Path(sys.argv[1]), (2, 3))
value = np.arange(6, dtype=np.float32).reshape(2, 3)
with ThreadPoolExecutor(4) as pool:
    numbers = range(int(sys.argv[2]), int(sys.argv[3]))
    list(pool.map(lambda n: cache.get(array_key(n=n), lambda: value + n), numbers))
"""


def test_threads_and_processes_share_the_files(store: ArrayCache, tmp_path: Path, lines: Messages):
    """Each process stores arrays of its own, and some that another stores too."""
    ranges = [("0", "60"), ("20", "80"), ("40", "100")]
    command = [sys.executable, "-c", FILL, str(tmp_path / "arrays")]
    processes = [
        subprocess.Popen([*command, *numbers], stdout=subprocess.PIPE, text=True) for numbers in ranges
    ]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["", "", ""]
    assert [process.returncode for process in processes] == [0, 0, 0]
    for n in range(100):
        np.testing.assert_array_equal(store.get(array_key(n=n), _never), VALUE + n)
    assert store.keys.stat().st_size == 100 * ENTRY
    assert not lines()


def test_it_travels_to_other_processes(tmp_path: Path):
    cache = ArrayCache(tmp_path, (2, 3))
    cache.store(KEY, VALUE)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cache)).get(KEY, _never), VALUE)
