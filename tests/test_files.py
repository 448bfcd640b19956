from __future__ import annotations

import errno
import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from avsbench_harness import files
from avsbench_harness.errors import UsageError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with files.atomic_write(path) as file:
        file.write(b"old")

    def fail_in_the_middle() -> None:
        with files.atomic_write(path) as file:
            file.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_in_the_middle()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_files_are_readable_by_others(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_round_trips_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    files.write_json(path, {"a": [1, None, "ü"]})
    assert files.read_json(path) == {"a": [1, None, "ü"]}
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, float("nan"))
    assert files.read_json(path) == {"a": [1, None, "ü"]}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000 + "]" * 200_000,
        '{"a":' * 150 + "1" + "}" * 150,
        "9" * 5000,
        f'{{"a": {10**30}}}',
        "[1e999]",
        "[-1E+400]",
        "NaN",
        "[Infinity]",
        r'["\ud800"]',
        "",
    ],
)
def test_hostile_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"a\.json is not valid JSON"):
        files.read_json(path)


def test_large_json_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 1 << 20)
    path = tmp_path / "a.json"
    path.write_text(f'"{"x" * (1 << 20)}"')
    with pytest.raises(UsageError, match=r"a\.json has more than 1 MiB"):
        files.read_json(path)


def test_invalid_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff{")
    with pytest.raises(UsageError, match=r"a\.json is not valid JSON"):
        files.read_json(path)


def test_hashes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert files.sha256_file(path) == hashlib.sha256(b"abc").hexdigest()
    assert files.sha256_json({"b": 1, "a": 2}) == files.sha256_json({"a": 2, "b": 1})
    assert files.sha256_json({"a": 1}) != files.sha256_json({"a": 2})


def test_the_cache_folder_can_be_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path))
    assert files.cache_dir() == tmp_path
    monkeypatch.delenv("AVSB_CACHE_DIR")
    assert files.cache_dir().name == "avsbench-harness"


def test_temporary_files_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    kept, left = tmp_path / "weights.safetensors", tmp_path / ".val.npz.abc.tmp"
    for path in (kept, left):
        path.write_bytes(b"x")
    files.sweep_temporaries(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]


def test_a_failed_write_names_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError) as error:
        files.write_text(tmp_path / "file" / "a.json", "x")
    assert str(tmp_path / "file") in str(error.value.filename)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as folder:
        files.write_text(tmp_path / "folder", "x")
    assert folder.value.filename == str(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


WRITERS = {
    "json": "from avsbench_harness.files import write_text; write_text(path, 'x' * 10**5)",
    "tensors": "import torch; from avsbench_harness.weights.tensors import save_tensors\n"
    "save_tensors(path, {'a': torch.zeros(10**5)})",
    "optimizer": "import torch; from avsbench_harness.files import naming\n"
    "with naming(path), path.open('wb') as file: torch.save({'a': torch.zeros(10**5)}, file)",
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_names_the_path_and_leaves_no_temporary_file(tmp_path: Path, writer: str) -> None:
    """A limit of the file size stands for a full disk: both end in an OSError of the write."""
    script = (
        "import sys; from pathlib import Path; path = Path(sys.argv[1])\n"
        f"try:\n    exec({WRITERS[writer]!r})\nexcept OSError as error: print(error.errno, error.filename)\n"
    )
    path = tmp_path / "out.bin"
    limit: Callable[[], None] = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))  # noqa: E731
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(errno.EFBIG), str(path)], done.stderr
    assert not list(tmp_path.glob(".*"))


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from avsbench_harness.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as file:\n"
        "    file.write(b'x'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "a.json"
    killed = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert killed.returncode == -9
    assert len(list(tmp_path.glob(".*.tmp"))) == 1
    with files.atomic_write(tmp_path / "b.json") as file:
        file.write(b"y")
        files._swept.clear()
        files.write_text(path, "x")  # does not remove the file of this process
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_a_named_pipe_is_no_json_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(UsageError, match=r"pipe\.json is not a regular file"):
        files.read_json(tmp_path / "pipe.json")


def test_a_full_disk_is_named_by_write_at() -> None:
    with pytest.raises(OSError, match="No space left") as error:
        files.write_at(Path("/dev/full"), 0, bytes(10))
    assert error.value.filename == "/dev/full"
