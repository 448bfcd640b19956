"""The commands in the README and in the overview, and the architecture, are correct."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_ci_runs_the_test_command_of_the_readme() -> None:
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if "nox" in line]
    assert commands
    assert commands[-1] in README


def test_every_command_in_the_overview_exists(avsb) -> None:
    cells = re.findall(r"^\| (`avsb .*?) \|", COMMANDS, re.MULTILINE)
    commands = set()
    for cell in cells:
        texts = [re.sub(r"[A-Z\[\]]+", "", text) for text in re.findall(r"`([^`]*)`", cell)]
        named = [re.findall("[a-z]+", text) for text in texts]
        assert named[0][0] == "avsb"
        for words in named:  # "`avsb data check`, `info`" is two commands of one group
            commands.add(tuple(words[1:] if words[0] == "avsb" else [*named[0][1:-1], *words]))
    assert {("run",), ("train",), ("predict",), ("data", "check"), ("weights", "import")} <= commands
    for command in sorted(commands):
        assert avsb(*command, "--help").code == 0, command


def test_the_architecture_lists_every_layer_in_order() -> None:
    tree = ARCHITECTURE.split("avsbench_harness/\n")[1].split("methods/")[0]
    listed = re.findall(r"(\w+)(?:\.py|/ )", tree)
    source = ast.parse((ROOT / "tests" / "test_architecture.py").read_text(encoding="utf-8"))
    (layers,) = (
        ast.literal_eval(node.value)
        for node in source.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS"
    )
    assert listed == layers


def test_the_example_submission_scores_without_data(avsb, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = re.findall(r"^avsb (score submissions/example\.npz .*)$", README, re.MULTILINE)
    monkeypatch.chdir(ROOT)
    result = avsb(*command.split(), "--json")
    assert result.code == 0
    assert 0.5 < result.json["metrics"]["J"] < 0.9


def test_the_example_solution_has_the_fingerprint_of_the_real_test_split(
    avsb, real_s4: Path, tmp_path: Path
) -> None:
    made = avsb("data", "solution", real_s4, "--task", "s4", "--out", tmp_path / "s.npz", "--json").json
    example = avsb(
        "score",
        ROOT / "submissions" / "example.npz",
        "--solution",
        ROOT / "submissions" / "example-solution.npz",
        "--json",
    )
    assert example.json["solution"] == made["fingerprint"]
