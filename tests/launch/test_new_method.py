"""`avsb methods new`: a working method, and refused names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from avsbench_harness.errors import UsageError
from avsbench_harness.launch.new_method import new_method
from avsbench_harness.method import from_folder

FILES = {
    "README.md", "__init__.py", "loss.py", "model.py", "options.py", "recipes.yaml", "test_two_words.py",
}  # fmt: skip


def test_names_are_replaced_in_every_file(tmp_path: Path) -> None:
    files = new_method("two_words", tmp_path)
    assert (
        {file.name for file in files} == {path.name for path in (tmp_path / "two_words").iterdir()} == FILES
    )
    assert not [file for file in files if "my_method" in file.read_text() or "MyMethod" in file.read_text()]
    method = from_folder(tmp_path / "two_words")
    assert (method.name, type(method).__name__) == ("two_words", "TwoWords")
    assert all(f"`{name}`" in method.card() for name in method.options.model_fields)


@pytest.mark.parametrize("name", ["Upper", "with space", "1st", "../escape", "", "class", "dash-ed"])
def test_invalid_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is not a valid name"):
        new_method(name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["combo", "comboi"])
def test_names_and_aliases_of_installed_methods_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"A method '{name}' is already installed"):
        new_method(name, tmp_path)


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    new_method("mine", tmp_path)
    with pytest.raises(UsageError, match="already exists"):
        new_method("mine", tmp_path)


@pytest.mark.slow
def test_the_generated_test_passes(tmp_path: Path) -> None:
    """For one task, with a third party's pytest configuration: unknown markers are errors."""
    new_method("mine", tmp_path)
    test = tmp_path / "mine" / "test_mine.py"
    test.write_text(test.read_text() + '    tasks = ("ms3",)\n')
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider", str(test)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


@pytest.mark.slow
def test_the_generated_method_trains_and_is_scored(avsb, tmp_path: Path) -> None:
    new_method("mine", tmp_path)
    options = ("--backbone", "r50", "--out", tmp_path, "--device", "cpu", "--json")
    result = avsb("run", "--method", tmp_path / "mine", *options)
    assert result.code == 0, result.err
    assert list((tmp_path / "results").glob("*.json"))
