"""Scoring in a process of its own, and its limits."""

from __future__ import annotations

import io
import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.errors import AvsbError
from avsbench_harness.host import worker
from avsbench_harness.host.scoring_queue import request_for, score_pending
from avsbench_harness.host.worker import Request, Result, score, score_isolated


@pytest.fixture
def request_of(competition):
    def make(path: Path, **changes) -> Request:
        snapshot = competition.challenge.snapshot()
        version = snapshot.versions[0]
        values = {
            "submission": str(path),
            "solution": str(competition.challenge.solution_of(1)),
            "protocol": version.protocol,
            "metrics": version.metrics,
            "accepted": (version.solution,),
            "memory": 4096,
            "seconds": 300,
        }
        return Request(**{**values, **changes})

    return make


def bomb(path: Path) -> Path:
    """A zip that declares a clip of 100 MB, compressed to 100 kB."""
    member = io.BytesIO()
    np.lib.format.write_array(member, np.zeros((100_000_000,), np.uint8))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("clip.npy", member.getvalue())
        archive.writestr("header.npy", member.getvalue())
    return path


def test_a_process_gives_the_scores_of_this_one(competition, request_of) -> None:
    path = competition.predict("x", {"public": 0.6, "private": 0.4})
    request = request_of(path)
    isolated = score_isolated(request)
    assert isolated == score(request)
    assert isolated.public["n"] == isolated.private["n"] == 4
    assert isolated.public["method"] == "x"


def test_hostile_files_are_faults_of_the_submission(request_of, tmp_path: Path) -> None:
    empty = tmp_path / "empty.npz"
    empty.write_bytes(b"")
    for path in (empty, bomb(tmp_path / "bomb.npz")):
        result = score(request_of(path))
        assert result.fault
        assert result.public == result.private == {}


def test_another_fingerprint_is_a_fault(competition, request_of) -> None:
    path = competition.predict("x", {"public": 0.6, "private": 0.4})
    solution = competition.challenge.solution_of(1)
    other = Path(str(solution)).with_name("other.npz")
    from avsbench_harness.submission import read_solution, write_solution

    with read_solution(solution) as truth:
        clips = [(clip, 1 - truth.read(clip), "ms3") for clip in truth.clips]
    write_solution(other, "ms3", "test", clips, private=0.5)
    request = replace(request_of(path), solution=str(other))
    assert score(request).fault == ""  # a fixed label, see Request.accepted
    assert "not " in score(replace(request, accepted=())).fault


def test_a_scoring_out_of_memory_fails(competition, request_of) -> None:
    path = competition.predict("x", {"public": 0.6, "private": 0.4})
    with pytest.raises(AvsbError, match="scoring failed"):
        score_isolated(request_of(path, memory=60))


def test_a_scoring_out_of_time_is_killed(request_of, tmp_path: Path, monkeypatch) -> None:
    """With a program in place of Python that does not end."""
    slow, pid = tmp_path / "slow", tmp_path / "pid"
    slow.write_text(f"#!/bin/sh\necho $$ > {pid}\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(worker.sys, "executable", str(slow))
    monkeypatch.setattr(worker, "GRACE", 0)
    with pytest.raises(AvsbError, match="more than 1 seconds"):
        score_isolated(request_of(tmp_path / "x.npz", seconds=1))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_failed_scoring_is_tried_again_on_request(competition, monkeypatch) -> None:
    from avsbench_harness.host import scoring_queue
    from avsbench_harness.host.rules import Arrival

    path = competition.predict("x", {"public": 0.6, "private": 0.4})
    stored = competition.challenge.file_of("a" * 32)
    stored.write_bytes(path.read_bytes())
    arrival = Arrival("a" * 32, 1, competition.clock.now, "f" * 64, 1, {"paper": "x"})
    competition.challenge.receive(arrival)

    def fail(request: Request) -> Result:
        raise AvsbError("The scoring failed: no space.")

    monkeypatch.setattr(scoring_queue, "score_isolated", fail)
    (one,) = score_pending(competition.challenge)
    assert (one.status, one.reason) == ("failed", "The scoring failed: no space.")
    assert list(score_pending(competition.challenge)) == []
    monkeypatch.setattr(scoring_queue, "score_isolated", score)
    assert competition.challenge.retry() == 1
    (one,) = score_pending(competition.challenge)
    assert (one.status, one.reason) == ("scored", "")
    snapshot = competition.challenge.snapshot()
    assert json.loads(json.dumps(request_for(competition.challenge, snapshot, one, 1).metrics)) == ["J", "F"]
