"""Packages that are slow to import, by the commands that do not need them; each command runs in a process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from avsbench_harness.launch.datasets import generated_dataset
from avsbench_harness.tasks import S4

#: Runs the command line, then writes the imported modules to the file that its first argument names.
PROGRAM = """
import json, pathlib, sys
from avsbench_harness import cli
found, sys.argv = pathlib.Path(sys.argv[1]), ["avsb", *sys.argv[2:]]
try:
    cli.main()
except SystemExit as stop:
    assert not stop.code, stop.code
found.write_text(json.dumps(sorted(sys.modules)))
"""

#: Packages that take from 0.2 to 5 seconds to import.
HEAVY = {"torch", "torchvision", "timm", "torchaudio", "matplotlib", "pandas", "numba", "scipy"}


def imported(folder: Path, *arguments: object) -> set[str]:
    """The heavy packages that a command imports; it must succeed."""
    found = folder / "imported.json"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(found), *map(str, arguments)]
    subprocess.run(command, check=True, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    return HEAVY & set(json.loads(found.read_text()))


@pytest.fixture
def records(data: Path, tmp_path: Path) -> Path:
    """A copy of the records, to which the leaderboard may be written."""
    return Path(shutil.copytree(data / "records", tmp_path / "results"))


def test_records_that_were_checked_need_only_numpy(records: Path, avsb) -> None:
    assert avsb("results", "validate", "--results", records).code == 0
    for command in (("results", "validate"), ("leaderboard",), ("leaderboard", "--check")):
        assert imported(records.parent, *command, "--results", records) == set(), command


def test_new_records_need_no_torch(records: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "new"))
    assert imported(tmp_path, "leaderboard", "--results", records) == {"pandas", "numba", "scipy"}


def test_the_state_of_a_sweep_needs_no_torch(tmp_path: Path, cache: Path) -> None:
    generated_dataset("synthetic", S4)
    command = ("sweep", "status", "--method", "combo,tpavi", "--seeds", "0..3")
    assert imported(tmp_path, *command) == {"scipy"}  # of the synthetic set


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("methods", set()),
        ("weights list", set()),
        ("cache info", set()),
        ("submit check {submissions}/example.npz", set()),
        (
            "score {submissions}/example.npz --solution {submissions}/example-solution.npz",
            {"numba", "scipy"},
        ),
    ],
)
def test_commands_without_networks_need_no_torch(command: str, needed: set[str], tmp_path: Path) -> None:
    submissions = Path(__file__).parents[1] / "submissions"
    words = command.format(submissions=submissions).split()
    assert imported(tmp_path, *words) == needed
