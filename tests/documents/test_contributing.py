"""Documents and configuration for contributors name sessions that exist, and run what ``.ci/run`` runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
NOXFILE = (ROOT / "noxfile.py").read_text(encoding="utf-8")
WORKFLOWS = ROOT / ".github" / "workflows"
SESSIONS = set(re.findall(r"^@nox\.session\ndef (\w+)", NOXFILE, re.MULTILINE))


def steps(workflow: str) -> list[str]:
    jobs = yaml.safe_load((WORKFLOWS / workflow).read_text(encoding="utf-8"))["jobs"]
    return [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", ".pre-commit-config.yaml"])
def test_named_sessions_exist(document: str) -> None:
    named = set(re.findall(r"nox -s (\w+)", (ROOT / document).read_text(encoding="utf-8")))
    assert named
    assert named <= SESSIONS


def test_default_sessions_assert_no_speed() -> None:
    (defaults,) = re.findall(r"nox\.options\.sessions = \[(.*)\]", NOXFILE)
    assert re.findall(r"\w+", defaults) == ["lint", "types", "docs", "tests", "browser"]


def test_the_workflow_of_pull_requests_runs_the_ci_command() -> None:
    assert steps("checks.yml") == [".ci/run"]


def test_the_weekly_workflow_runs_sessions_outside_the_default() -> None:
    jobs = yaml.safe_load((WORKFLOWS / "weekly.yml").read_text(encoding="utf-8"))["jobs"]
    sessions = set(jobs["nox"]["strategy"]["matrix"]["session"])
    assert sessions <= SESSIONS - {"lint", "types", "docs", "tests", "browser"}
    assert steps("weekly.yml")[-1] == "nox -s ${{ matrix.session }}"


def test_the_workflow_of_results_runs_what_the_guide_names(avsb) -> None:
    guide = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    commands = [step for step in steps("results.yml") if step.startswith("avsb")]
    assert commands == ["avsb results validate", "avsb leaderboard --check"]
    for command in commands:
        assert f"`{command}`" in guide
        assert avsb(*command.split()[1:], "--help").code == 0


def test_workflows_cover_the_supported_python_versions() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    classified = re.findall(r"Programming Language :: Python :: (3\.\d+)", project)
    jobs = yaml.safe_load((WORKFLOWS / "checks.yml").read_text(encoding="utf-8"))["jobs"]
    assert jobs["nox"]["strategy"]["matrix"]["python"] == classified
