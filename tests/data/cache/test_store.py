from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.data.cache import store as module
from avsbench_harness.data.cache.store import RECORD_SIZE, ArrayStore, array_key

Messages = Callable[[], list[str]]

KEY, OTHER = array_key(sound="abc", version=1), array_key(sound="abd", version=1)
VALUE = np.arange(6, dtype=np.float32).reshape(2, 3)
SIZE = 24  # bytes of VALUE


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> Messages:
    """Messages logged so far."""
    caplog.set_level("INFO", logger="avsbench_harness")
    return lambda: caplog.messages


@pytest.fixture
def store(tmp_path: Path, messages: Messages) -> ArrayStore:
    return ArrayStore(tmp_path / "arrays")


def _never() -> np.ndarray:
    raise AssertionError("computed although it is stored")


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_computed_once(store: ArrayStore, messages: Messages):
    np.testing.assert_array_equal(store.get(KEY, lambda: VALUE), VALUE)
    np.testing.assert_array_equal(store.get(KEY, _never), VALUE)
    store.store(OTHER, VALUE + 1)
    np.testing.assert_array_equal(store.get(KEY, _never), VALUE)
    kept = np.fromfile(store.data, np.float32).reshape(2, 2, 3)  # nothing but the values, for other tools
    np.testing.assert_array_equal(kept, [VALUE, VALUE + 1])
    assert not messages()


def test_arrays_that_were_read_may_be_changed(store: ArrayStore):
    store.store(KEY, VALUE)
    store.get(KEY, _never)[:] = 0
    np.testing.assert_array_equal(store.get(KEY, _never), VALUE)


def test_keys_differ_by_every_part():
    assert len({KEY, array_key(sound="abc", version=2), array_key(sound="abd", version=1)}) == 3
    assert array_key(version=1, sound="abc") == KEY


@pytest.mark.parametrize("position", [0, 13, 23])
def test_a_flipped_bit_is_found_logged_and_repaired(store: ArrayStore, messages: Messages, position: int):
    store.store(KEY, VALUE)
    store.store(OTHER, VALUE + 1)
    flip(store.data, position)
    assert store.load(KEY) is None
    assert messages() == [f"An array in {store.folder} is damaged; it is computed again."]
    np.testing.assert_array_equal(store.get(KEY, lambda: VALUE), VALUE)
    np.testing.assert_array_equal(store.get(KEY, _never), VALUE)
    np.testing.assert_array_equal(store.get(OTHER, _never), VALUE + 1)
    assert store.data.stat().st_size == 2 * SIZE


@pytest.mark.parametrize("position", [0, 31, 32, 39, 40, 64, 68, 72, 75])
@pytest.mark.parametrize("opened_before", [True, False])
def test_a_flipped_bit_of_a_record(store: ArrayStore, tmp_path: Path, opened_before: bool, position: int):
    store.store(KEY, VALUE)
    store.store(OTHER, VALUE + 1)
    flip(store.index, position)
    seen = store if opened_before else ArrayStore(tmp_path / "arrays")
    assert seen.load(KEY) is None
    np.testing.assert_array_equal(seen.get(KEY, lambda: VALUE), VALUE)
    np.testing.assert_array_equal(seen.get(KEY, _never), VALUE)
    np.testing.assert_array_equal(seen.get(OTHER, _never), VALUE + 1)


@pytest.mark.parametrize("length", [0, 10, SIZE, SIZE + 10])
def test_truncated_arrays_are_found(store: ArrayStore, length: int):
    store.store(KEY, VALUE)
    store.store(OTHER, VALUE + 1)
    store.data.write_bytes(store.data.read_bytes()[:length])
    assert store.load(OTHER) is None
    np.testing.assert_array_equal(store.get(OTHER, lambda: VALUE + 1), VALUE + 1)
    np.testing.assert_array_equal(store.get(KEY, lambda: VALUE), VALUE)


@pytest.mark.parametrize("length", [0, 10, RECORD_SIZE, RECORD_SIZE + 10])
def test_a_truncated_index_is_found(store: ArrayStore, tmp_path: Path, length: int):
    store.store(KEY, VALUE)
    store.store(OTHER, VALUE + 1)
    store.index.write_bytes(store.index.read_bytes()[:length])
    for seen in (store, ArrayStore(tmp_path / "arrays")):
        np.testing.assert_array_equal(seen.get(OTHER, lambda: VALUE + 1), VALUE + 1)
        np.testing.assert_array_equal(seen.get(KEY, lambda: VALUE), VALUE)
    assert store.index.stat().st_size == 2 * RECORD_SIZE


def test_an_emptied_folder_is_filled_again(store: ArrayStore, tmp_path: Path):
    store.store(KEY, VALUE)
    store.store(OTHER, VALUE + 1)
    shutil.rmtree(store.folder)
    another = ArrayStore(tmp_path / "arrays")
    another.store(OTHER, VALUE + 1)  # now where the key that the first still knows was
    another.store(array_key(sound="new"), VALUE + 2)
    np.testing.assert_array_equal(store.get(KEY, lambda: VALUE), VALUE)
    np.testing.assert_array_equal(store.get(OTHER, _never), VALUE + 1)
    np.testing.assert_array_equal(another.get(KEY, _never), VALUE)


@pytest.mark.parametrize(
    "array", [VALUE.astype(np.float64), np.zeros(0, np.float32), np.zeros((1,) * 7, np.uint8)]
)
def test_unsupported_arrays_are_refused(store: ArrayStore, array: np.ndarray):
    with pytest.raises(ValueError, match="expected a uint8 or float32 array"):
        store.store(KEY, array)
    assert not store.folder.exists()


def test_arrays_of_several_shapes_and_types_lie_in_one_collection(store: ArrayStore):
    arrays = [VALUE, np.arange(7, dtype=np.uint8), VALUE.reshape(1, 3, 1, 2), np.zeros((1,) * 6, np.float32)]
    for number, array in enumerate(arrays):
        store.store(array_key(n=number), array)
    for number, array in enumerate(arrays):
        stored = ArrayStore(store.folder).get(array_key(n=number), _never)
        assert (stored.dtype, stored.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(stored, array)


def test_an_array_is_replaced_by_one_of_another_length(store: ArrayStore):
    store.store(KEY, VALUE)
    store.store(KEY, VALUE[:1])  # the only array of its collection stays at the start of the file
    assert store.data.read_bytes() == VALUE[:1].tobytes()
    store.store(OTHER, VALUE)
    store.store(KEY, VALUE)
    for opened in (store, ArrayStore(store.folder)):
        np.testing.assert_array_equal(opened.get(KEY, _never), VALUE)
        np.testing.assert_array_equal(opened.get(OTHER, _never), VALUE)
    assert store.index.stat().st_size == 2 * RECORD_SIZE


def test_missing_keys_are_those_without_a_complete_array(store: ArrayStore):
    assert store.missing([KEY, OTHER]) == [KEY, OTHER]
    store.store(KEY, VALUE)
    assert store.missing([KEY, OTHER]) == [OTHER]
    store.store(OTHER, VALUE)
    assert (store.missing([KEY, OTHER]), sorted(store.stored_keys())) == ([], sorted([KEY, OTHER]))
    store.data.write_bytes(store.data.read_bytes()[:-1])
    assert store.missing([KEY, OTHER]) == [OTHER]


def test_checksums_are_compared_at_the_first_reading(store: ArrayStore):
    """A second reading costs no checksum; the damage of a file in use is found by the next process."""
    store.store(KEY, VALUE)
    store.get(KEY, _never)
    flip(store.data, 0)
    assert store.load(KEY) is not None
    assert ArrayStore(store.folder).load(KEY) is None


def test_a_large_array_is_checked_in_pieces(store: ArrayStore, messages: Messages):
    assert not store.is_intact(KEY)
    large = np.random.default_rng(0).integers(0, 256, 8 << 20, dtype=np.uint8)
    store.store(KEY, large)
    tracemalloc.start()
    assert store.is_intact(KEY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 << 20
    assert not messages()
    flip(store.data, large.size - 1)
    assert not store.is_intact(KEY, "The large array")
    assert ["The large array" in line for line in messages()] == [True]
    store.data.unlink()
    assert not store.is_intact(KEY)


def test_a_damaged_record_is_replaced_by_the_next_array(store: ArrayStore, messages: Messages):
    for number in range(3):
        store.store(array_key(n=number), VALUE + number)
    flip(store.index, RECORD_SIZE + 5)
    opened = ArrayStore(store.folder)
    assert opened.missing(array_key(n=n) for n in range(3)) == [array_key(n=1)]
    assert messages() == [f"Record 1 of {store.index} is damaged; its array is computed again."]
    opened.store(array_key(n=3), VALUE + 3)
    assert store.index.stat().st_size == 3 * RECORD_SIZE
    for number in (0, 2, 3):
        opened = ArrayStore(store.folder)
        np.testing.assert_array_equal(opened.get(array_key(n=number), _never), VALUE + number)
    assert len(messages()) == 1


def test_what_a_killed_writer_left_is_overwritten(store: ArrayStore):
    """It was killed after its array, then inside its record."""
    store.store(KEY, VALUE)
    for rest in (b"", b"half a record"):
        with store.data.open("ab") as data, store.index.open("ab") as index:
            data.write(bytes(1000))
            index.write(rest)
        assert ArrayStore(store.folder).load(OTHER) is None
        store.store(array_key(rest=rest.decode()), VALUE)
    assert store.data.stat().st_size == 3 * SIZE
    assert store.index.stat().st_size == 3 * RECORD_SIZE


def test_a_full_disk_leaves_the_other_arrays(store: ArrayStore, monkeypatch):
    store.store(KEY, VALUE)

    def write(path: Path, place: int, content: memoryview) -> None:
        path.write_bytes(path.read_bytes() + content[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_at", write)
        with pytest.raises(OSError, match="No space left"):
            store.store(OTHER, VALUE + 1)
    assert store.load(OTHER) is None
    np.testing.assert_array_equal(store.get(OTHER, lambda: VALUE + 1), VALUE + 1)
    np.testing.assert_array_equal(store.get(KEY, _never), VALUE)
    assert store.data.stat().st_size == 2 * SIZE


def test_a_failed_computation_stores_nothing(store: ArrayStore):
    with pytest.raises(AssertionError, match="computed"):
        store.get(KEY, _never)
    assert not store.folder.exists()


FILL = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from avsbench_harness.data.cache.store import RECORD_SIZE, ArrayStore, array_key
cache = ArrayStore(Path(sys.argv[1]))
value = np.arange(6, dtype=np.float32).reshape(2, 3)
with ThreadPoolExecutor(4) as pool:
    numbers = range(int(sys.argv[2]), int(sys.argv[3]))
    list(pool.map(lambda n: cache.get(array_key(n=n), lambda: value + n), numbers))
"""


def test_threads_and_processes_share_the_files(store: ArrayStore, tmp_path: Path, messages: Messages):
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
    assert store.index.stat().st_size == 100 * RECORD_SIZE
    assert not messages()


def test_it_can_be_pickled(tmp_path: Path):
    cache = ArrayStore(tmp_path)
    cache.store(KEY, VALUE)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cache)).get(KEY, _never), VALUE)


def test_a_collection_that_another_process_made_again_is_read_anew(store: ArrayStore, tmp_path: Path):
    """Its index has more records than the store has read, at other offsets."""
    store.store(KEY, VALUE)
    shutil.rmtree(store.folder)
    another = ArrayStore(tmp_path / "arrays")
    keys = [array_key(new=number) for number in range(3)]
    for number, key in enumerate(keys):
        another.store(key, np.full((number + 4, 5), number, np.float32))
    another.store(keys[0], np.zeros((20, 20), np.float32))  # longer, so now the last in the file
    store.store(OTHER, VALUE)
    for key, shape in zip(keys, [(20, 20), (5, 5), (6, 5)], strict=True):
        assert another.get(key, _never).shape == ArrayStore(store.folder).get(key, _never).shape == shape
    np.testing.assert_array_equal(another.get(OTHER, _never), VALUE)
