"""The size limit of the cache, and what is removed to keep it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.data.cache.eviction import (
    DEFAULT_LIMIT,
    LIMIT_VARIABLE,
    RESERVE,
    clear,
    collections,
    make_room,
    size_limit,
)
from avsbench_harness.data.cache.store import RECORD_SIZE, ArrayStore, array_key
from avsbench_harness.errors import UsageError

VALUE = np.zeros(10_000, np.uint8)
SIZE = 10_000 + RECORD_SIZE


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path))
    return tmp_path


def add(cache: Path, name: str, used: int, entries: int = 1) -> ArrayStore:
    """A collection of arrays of 10 kB that was last used at a time."""
    store = ArrayStore(cache / name)
    for number in range(entries):
        store.store(array_key(n=number), VALUE)
    os.utime(cache / name / ".in-use", (used, used))
    return store


def names() -> list[str]:
    return [f"{collection.kind}/{collection.folder.name}" for collection in collections()]


def limit(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, str(size / 1e9))


USER = """
import sys
from pathlib import Path
from avsbench_harness.data.cache.store import ArrayStore, array_key
store = ArrayStore(Path(sys.argv[1]))
assert store.load(array_key(n=0)) is not None
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def user(cache: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the collection decoded/one open."""
    add(cache, "decoded/one", 1)
    command = [sys.executable, "-c", USER, str(cache / "decoded" / "one")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_collections_are_listed_by_their_last_use(cache: Path) -> None:
    add(cache, "decoded/new", 30)
    add(cache, "solutions/old", 10, entries=2)
    add(cache, "weights/other", 5)  # not in the array store
    (cache / "log-mels").mkdir()
    first, second = collections()
    assert (first.kind, first.folder.name, first.entries, first.size) == ("solutions", "old", 2, 2 * SIZE)
    assert (second.kind, second.entries, second.in_use) == ("decoded", 1, False)
    assert first.to_json() == {
        "kind": "solutions", "name": "old", "entries": 2, "bytes": 2 * SIZE,
        "last_used": "1970-01-01T00:00:10+00:00", "in_use": False,
    }  # fmt: skip
    assert [collection.folder.name for collection in collections("solutions")] == ["old"]


def test_the_least_recently_used_collections_make_room(cache: Path, monkeypatch, caplog) -> None:
    for name, used in {"decoded/b": 20, "embeddings/a": 10, "log-mels/c": 30}.items():
        add(cache, name, used)
    caplog.set_level("INFO")
    limit(monkeypatch, 4 * SIZE)
    assert make_room(SIZE) is None
    assert names() == ["embeddings/a", "decoded/b", "log-mels/c"]  # nothing has to be removed
    assert make_room(2 * SIZE) is None
    assert names() == ["decoded/b", "log-mels/c"]
    assert caplog.messages == [f"Removed {cache / 'embeddings' / 'a'} from the cache to make room."]
    assert make_room(4 * SIZE) is None
    assert names() == []


def test_loading_counts_as_use(cache: Path, monkeypatch) -> None:
    add(cache, "decoded/a", 10)
    add(cache, "decoded/b", 20)
    assert ArrayStore(cache / "decoded" / "a").load(array_key(n=0)) is not None
    assert names() == ["decoded/b", "decoded/a"]


def test_too_large_requests_remove_nothing(cache: Path, monkeypatch) -> None:
    add(cache, "decoded/a", 10)
    limit(monkeypatch, 4 * SIZE)
    shortage = make_room(4 * SIZE + 1)
    assert shortage is not None
    assert f"set {LIMIT_VARIABLE} to more GB" in shortage
    assert names() == ["decoded/a"]
    limit(monkeypatch, 0)
    assert make_room(1) is not None
    assert make_room(0) is None


def test_free_disk_is_reserved(cache: Path, monkeypatch) -> None:
    add(cache, "decoded/a", 10)
    usage = shutil.disk_usage(cache)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=RESERVE + 100))
    assert make_room(100) is None
    assert names() == ["decoded/a"]
    assert "free disk space" in str(make_room(101 + SIZE))
    assert make_room(101) is None
    assert names() == []


def test_a_collection_in_use_is_never_removed(cache: Path, user, monkeypatch) -> None:
    add(cache, "decoded/two", 2)
    limit(monkeypatch, 2 * SIZE)
    assert [collection.in_use for collection in collections()] == [False, True]
    assert make_room(SIZE) is None
    assert names() == ["decoded/one"]
    assert make_room(2 * SIZE) is not None
    removed, kept = clear()
    assert (removed, [collection.folder.name for collection in kept]) == ([], ["one"])
    assert ArrayStore(cache / "decoded" / "one").load(array_key(n=0)) is not None


def test_a_killed_process_holds_nothing(cache: Path, user) -> None:
    assert collections()[0].in_use
    user.kill()
    user.wait()
    removed, kept = clear("decoded")
    assert ([collection.folder.name for collection in removed], kept) == (["one"], [])
    assert list((cache / "decoded").iterdir()) == []


def test_a_store_of_this_process_holds_its_collection(cache: Path) -> None:
    store = add(cache, "decoded/a", 1)
    assert clear()[0] == []
    shutil.rmtree(store.folder)  # by a user
    assert store.load(array_key(n=0)) is None
    store.store(array_key(n=0), VALUE)  # made again, and held again
    assert clear()[0] == []
    del store
    assert len(clear()[0]) == 1


def test_leftovers_of_a_killed_removal_are_removed(cache: Path) -> None:
    (cache / "decoded" / ".a.123.removed").mkdir(parents=True)
    (cache / "decoded" / ".a.123.removed" / "data.bin").touch()
    assert collections() == []
    assert list((cache / "decoded").iterdir()) == []


OPEN_AND_CLEAR = """
import sys
from pathlib import Path
import numpy as np
from avsbench_harness.data.cache.eviction import clear
from avsbench_harness.data.cache.store import ArrayStore, array_key
folder, role = Path(sys.argv[1]), sys.argv[2]
for number in range(150):
    if role == "clear":
        clear()
        continue
    store = ArrayStore(folder / "decoded" / "shared")
    value = np.full(1000, number, np.uint8)
    store.store(array_key(n=number), value)
    assert (store.load(array_key(n=number)) == value).all()  # what a live process stored stays
"""


def test_clearing_beside_writers_removes_nothing_they_use(cache: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", OPEN_AND_CLEAR, str(cache), role])
        for role in ("clear", "write", "write")
    ]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]


@pytest.mark.parametrize("text", ["", "0.5", "1e2"])
def test_the_limit_is_read_from_the_environment(monkeypatch, text: str) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, text)
    assert size_limit() == int((float(text) if text else DEFAULT_LIMIT) * 1e9)


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf"])
def test_a_limit_that_is_no_size_is_refused(monkeypatch, text: str) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, text)
    with pytest.raises(UsageError, match=f"{LIMIT_VARIABLE} is '{text}'; set it to a number of GB"):
        make_room(1)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="Unknown kind of cached data 'decode'. Did you mean 'decoded'"):
        clear("decode")
