"""A small competition: eight test clips of the synthetic set, three teams, submissions of known quality."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.submission import Header, SubmissionWriter, read_solution
from avsbench_harness.tasks import MS3

pytest.importorskip("sqlalchemy", reason="needs the extra host")

from avsbench_harness.files import write_json
from avsbench_harness.host import audit, inbox, scoring_queue, worker
from avsbench_harness.host.challenge import Challenge
from avsbench_harness.host.definition import Definition, write_definition
from avsbench_harness.host.inbox import ingest, submit

TEAMS = ("Alpha", "Beta", "Gamma")
START, END = datetime(2027, 3, 1, tzinfo=UTC), datetime(2027, 3, 21, tzinfo=UTC)


def definition(data: Path | str, **changes: object) -> Definition:
    values: dict[str, object] = {
        "title": "AVS <2027>",
        "description": "Segment **sounding** objects. <script>alert(1)</script>\n",
        "rules": "Be fair.\n",
        "task": "ms3",
        "data": str(data),
        "protocol": "object/1",
        "metrics": ["J", "F"],
        "parts": {"private": 0.5, "seed": 11},
        "phases": [
            {"name": "development", "start": "2027-03-01", "end": "2027-03-11"},
            {"name": "final", "start": "2027-03-11", "end": "2027-03-21"},
        ],
        "limits": {"per_day": 2, "total": 4},
        "ties": "date",
        "required": ["paper"],
    }
    return Definition.parse({**values, **changes}, "the test")


@pytest.fixture(scope="session")
def avs_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("host") / "data"
    write_synthetic(root, MS3, (2, 1, 8), 5, jobs=1)
    return root


@dataclass
class Clock:
    """A clock that tests set."""

    now: datetime = datetime(2027, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def set(self, day: int, hour: int = 12, month: int = 3) -> datetime:
        self.now = datetime(2027, month, day, hour, tzinfo=UTC)
        return self.now


@dataclass
class Competition:
    """An open competition with teams and a clock."""

    challenge: Challenge
    clock: Clock
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.challenge.folder

    def predict(self, name: str, share: dict[str, float], seed: int = 0) -> Path:
        """A submission that is right in a share of the public and private clips' rows of pixels."""
        path = self.folder.parent / f"{name}.npz"
        with read_solution(self.challenge.solution_of(1)) as truth:
            header = Header("ms3", "test", truth.fingerprint, name)
            with SubmissionWriter(path, header) as writer:
                for clip, facts in truth.clips.items():
                    masks = truth.read(clip)
                    right = int(224 * share["private" if facts.private else "public"])
                    codes = masks * np.uint8(255)
                    codes[:, right:] = 0
                    codes[:, 223, seed % 224] = 255  # files of different seeds differ
                    writer.add(clip, codes)
        return path

    def truth_of(self, part: str) -> dict[str, np.ndarray]:
        with read_solution(self.challenge.solution_of(1)) as truth:
            return {
                clip: truth.read(clip)
                for clip, facts in truth.clips.items()
                if facts.private == (part == "private")
            }


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score in this process, which is faster; the worker's tests use processes."""
    monkeypatch.setattr(scoring_queue, "score_isolated", worker.score)
    monkeypatch.setattr(audit, "score_isolated", worker.score)


@pytest.fixture(scope="session")
def template(avs_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder of a competition with teams, and their tokens."""
    folder = tmp_path_factory.mktemp("template") / "challenge"
    write_definition(folder, definition(avs_data))
    with Challenge(folder, clock=Clock()) as challenge:
        tokens = {name: challenge.add_team(name, f"{name}@example.org") for name in TEAMS}
    return folder, tokens


@pytest.fixture
def competition(template: tuple[Path, dict[str, str]], tmp_path: Path) -> Iterator[Competition]:
    folder, tokens = template
    clock = Clock()
    shutil.copytree(folder, tmp_path / "challenge")
    with Challenge(tmp_path / "challenge", clock=clock) as challenge:
        yield Competition(challenge, clock, dict(tokens))


@pytest.fixture
def redefine(avs_data: Path) -> Callable[..., Definition]:
    """The definition of the competition with changes."""
    return lambda **changes: definition(**{"data": avs_data, **changes})


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of a process that runs the command line of this checkout."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


def hand_in(
    one: Competition, day: int, team: str, path: Path, times: dict[str, datetime], hour: int = 12
) -> str:
    ticket = submit(one.challenge.inbox, path, team, one.tokens[team], {"paper": "none"})
    times[ticket] = one.clock.set(day, hour)
    return ticket


@pytest.fixture(scope="session")
def played_once(template, tmp_path_factory):
    """The folder after :func:`play`, tickets and files by name."""
    folder, tokens = template
    root = tmp_path_factory.mktemp("played")
    shutil.copytree(folder, root / "challenge")
    with (
        pytest.MonkeyPatch.context() as patch,
        Challenge(root / "challenge", clock=Clock()) as challenge,
    ):
        patch.setattr(scoring_queue, "score_isolated", worker.score)
        times: dict[str, datetime] = {}
        patch.setattr(inbox, "arrival_time", lambda folder: times[folder.name])
        tickets, files = play(Competition(challenge, challenge.clock, tokens), times)
    return root / "challenge", tokens, tickets, files


@pytest.fixture
def played(played_once, tmp_path):
    """A copy of the competition after twelve submissions; tickets and files by name."""
    folder, tokens, tickets, files = played_once
    shutil.copytree(folder, tmp_path / "challenge")
    clock = Clock()
    clock.set(21, 0)
    with Challenge(tmp_path / "challenge", clock=clock) as challenge:
        yield Competition(challenge, clock, dict(tokens)), tickets, files


def play(one: Competition, times: dict[str, datetime]) -> tuple[dict[str, str], dict[str, Path]]:
    """Hand in twelve submissions, taken in day by day."""
    tickets: dict[str, str] = {}
    files = {
        "a1": one.predict("a1", {"public": 0.5, "private": 0.31}, 1),
        "a2": one.predict("a2", {"public": 0.9, "private": 0.42}, 2),
        "a3": one.predict("a3", {"public": 0.95, "private": 0.6}, 3),
        "b1": one.predict("b1", {"public": 0.8, "private": 0.83}, 4),
        "c1": one.predict("c1", {"public": 0.7, "private": 0.67}, 5),
    }
    broken = one.folder.parent / "broken.npz"
    broken.write_bytes(b"PK not a zip")
    files["broken"] = broken

    tickets["scored a1"] = hand_in(one, 2, "Alpha", files["a1"], times, 10)
    tickets["malformed"] = hand_in(one, 2, "Beta", broken, times, 11)
    ingest(one.challenge)
    tickets["scored b1"] = hand_in(one, 2, "Beta", files["b1"], times, 13)
    tickets["duplicate"] = hand_in(one, 2, "Alpha", files["a1"], times, 13)
    ingest(one.challenge)
    # A submission of Alpha, copied under another ticket and team while it is in the inbox.
    tickets["scored a2"] = hand_in(one, 2, "Alpha", files["a2"], times, 14)
    stolen, source = "0" * 31 + "1", one.challenge.inbox / tickets["scored a2"]
    shutil.copytree(source, one.challenge.inbox / stolen)
    form = json.loads((source / "submission.json").read_text())
    write_json(one.challenge.inbox / stolen / "submission.json", {**form, "team": "Gamma"})
    times[stolen] = one.clock.set(2, 15)
    tickets["replayed"] = stolen
    again = "0" * 31 + "2"  # the same team, but another ticket than the signed one
    shutil.copytree(source, one.challenge.inbox / again)
    times[again] = one.clock.set(2, 15)
    tickets["replayed again"] = again
    ingest(one.challenge)
    tickets["copy"] = hand_in(one, 2, "Gamma", files["b1"], times, 16)
    tickets["over the limit"] = hand_in(one, 2, "Alpha", files["a3"], times, 16)
    tickets["field missing"] = submit(one.challenge.inbox, files["c1"], "Gamma", one.tokens["Gamma"], {})
    times[tickets["field missing"]] = one.clock.set(2, 17)
    ingest(one.challenge)
    tickets["scored c1"] = hand_in(one, 12, "Gamma", files["c1"], times)
    tickets["late"] = hand_in(one, 21, "Alpha", files["a3"], times, 0)
    ingest(one.challenge)
    return tickets, files
