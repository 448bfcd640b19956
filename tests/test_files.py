from __future__ import annotations

import hashlib
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
