"""The Codabench bundle, checked by the rules of the platform's unpacker, and its scoring program."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from PIL import Image

from avsbench_harness.host.codabench import COMMAND, write_codabench
from avsbench_harness.scoring import score_submission
from avsbench_harness.submission import read_solution, read_submission


@pytest.fixture
def bundle(competition, tmp_path: Path) -> Path:
    path = tmp_path / "codabench.zip"
    write_codabench(competition.challenge, path, "example/avsb:0.1")
    return path


@pytest.fixture
def unpacked(bundle: Path, tmp_path: Path) -> Path:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "unpacked")
    return tmp_path / "unpacked"


def test_the_definition_follows_the_platform(unpacked: Path) -> None:
    """The requirements of the documented format (version 2) and of the unpacker, one by one."""
    values = yaml.safe_load((unpacked / "competition.yaml").read_text())
    documented = {
        "version", "title", "image", "terms", "description", "registration_auto_approve", "docker_image",
        "make_programs_available", "make_input_data_available", "enable_detailed_results", "pages", "phases",
        "tasks", "solutions", "fact_sheet", "leaderboards",
    }  # fmt: skip
    assert set(values) <= documented
    assert values["version"] == 2
    assert values["title"] == "AVS <2027>"
    Image.open(unpacked / values["image"]).verify()
    for file in [values["terms"], *(page["file"] for page in values["pages"])]:
        assert (unpacked / file).read_text().strip()
    indices = [task["index"] for task in values["tasks"]]
    assert indices == sorted(set(indices))
    for task in values["tasks"]:
        assert task["name"]
        program = unpacked / task["scoring_program"]
        assert yaml.safe_load((program / "metadata.yaml").read_text()) == {"command": COMMAND}
        assert (program / "score.py").is_file()
        assert (unpacked / task["reference_data"] / "solution.npz").is_file()
    for solution in values["solutions"]:
        assert set(solution["tasks"]) <= set(indices)
        assert (unpacked / solution["path"]).is_dir()
    before = None
    for index, phase in enumerate(values["phases"]):
        assert phase["index"] == index
        assert set(phase["tasks"]) <= set(indices)
        assert (unpacked / phase["starting_kit"]).is_dir()
        start = datetime.strptime(phase["start"], "%Y-%m-%d %H:%M:%S")
        assert before is None or start >= before  # sequential, without overlap
        last = index == len(values["phases"]) - 1
        before = None if last else datetime.strptime(phase["end"], "%Y-%m-%d %H:%M:%S")
        assert last or before > start
        assert phase.get("auto_migrate_to_this_phase", False) == last
        assert phase["max_submissions"] >= 1
    for board in values["leaderboards"]:
        assert board["title"]
        assert board["key"]
        assert board["submission_rule"] in (
            "Add", "Add_And_Delete", "Add_And_Delete_Multiple", "Force_Last", "Force_Latest_Multiple",
            "Force_Best",
        )  # fmt: skip
        assert [column["index"] for column in board["columns"]] == [0, 1]
        assert [column["key"] for column in board["columns"]] == ["J", "F"]
        assert {column["sorting"] for column in board["columns"]} <= {"asc", "desc"}
    question = values["fact_sheet"]["paper"]
    assert question["key"] == "paper"
    assert question["type"] == "text"
    assert question["is_required"] == "true"


def test_only_the_reference_data_hold_the_ground_truth(unpacked: Path) -> None:
    places = {path.parent.name for path in unpacked.rglob("solution.npz")}
    assert places == {"reference_public", "reference_private"}
    assert not list((unpacked / "starting_kit").rglob("solution*"))


def run_as_platform(unpacked: Path, app: Path, part: str, environment: dict[str, str], *files: Path):
    """Lay out a container as the platform's worker does, and run the command of the program."""
    shutil.copytree(unpacked / "scoring_program", app / "program")
    shutil.copytree(unpacked / f"reference_{part}", app / "input" / "ref")
    (app / "input" / "res").mkdir()
    for path in files:
        shutil.copy(path, app / "input" / "res")
    (app / "output").mkdir()
    (app / "shared").mkdir()
    command = yaml.safe_load((app / "program" / "metadata.yaml").read_text())["command"]
    words = [word.replace("/app", str(app)).replace("python3", sys.executable) for word in command.split()]
    kept = {key: environment[key] for key in ("PATH", "PYTHONPATH", "OMP_NUM_THREADS")}
    return subprocess.run(
        words, cwd=app / "program", env={**kept, "PYTHONUNBUFFERED": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("part", ["public", "private"])
def test_the_scoring_program_as_the_platform_calls_it(
    competition, unpacked: Path, tmp_path: Path, environment, part: str
) -> None:
    path = competition.predict("mine", {"public": 0.7, "private": 0.3})
    app = tmp_path / "app"
    done = run_as_platform(unpacked, app, part, environment, path)
    assert done.returncode == 0, done.stderr
    scores = json.loads((app / "output" / "scores.json").read_text())
    with read_solution(competition.challenge.solution_of(1)) as truth, read_submission(path) as submission:
        expected = score_submission(submission, truth, part=part).metrics
    assert scores == {"J": expected["J"], "F": expected["F"]}
    assert [entry.name for entry in (app / "output").iterdir()] == ["scores.json"]
    assert str(scores["J"])[:6] not in done.stdout + done.stderr


def test_faults_are_explained(unpacked: Path, tmp_path: Path, environment) -> None:
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK")
    done = run_as_platform(unpacked, tmp_path / "a", "public", environment, broken)
    assert done.returncode == 3
    assert "not a complete zip" in done.stderr
    assert not list((tmp_path / "a" / "output").iterdir())
    done = run_as_platform(unpacked, tmp_path / "b", "public", environment)
    assert done.returncode == 3
    assert "one submission" in done.stderr


def test_equal_competitions_give_equal_bytes(competition, bundle: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.zip"
    write_codabench(competition.challenge, again, "example/avsb:0.1")
    assert again.read_bytes() == bundle.read_bytes()
