"""Load of the competition server: 200 uploads of 20 clients, and the board while they are scored."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="needs the extra host")
httpx = pytest.importorskip("httpx", reason="needs httpx")

from avsbench_harness.data.synth import write_synthetic  # noqa: E402
from avsbench_harness.host.audit import audit  # noqa: E402
from avsbench_harness.host.challenge import Challenge  # noqa: E402
from avsbench_harness.host.definition import Definition, write_definition  # noqa: E402
from avsbench_harness.submission import Header, SubmissionWriter, read_solution  # noqa: E402
from avsbench_harness.tasks import MS3  # noqa: E402

CLIENTS, UPLOADS = 20, 10


def write_submissions(challenge: Challenge, folder: Path) -> list[Path]:
    """One distinct submission per upload."""
    paths = []
    with read_solution(challenge.solution_of(1)) as truth:
        header = Header("ms3", "test", truth.fingerprint, "load")
        clips = {clip: truth.read(clip) * np.uint8(255) for clip in truth.clips}
        for number in range(CLIENTS * UPLOADS):
            path = folder / f"{number}.npz"
            with SubmissionWriter(path, header) as writer:
                for clip, codes in clips.items():
                    changed = codes.copy()
                    changed[:, number % 224, : 1 + number // 224 * 20 + 10] = 255
                    writer.add(clip, changed)
            paths.append(path)
    return paths


@pytest.mark.timeout(3600)
def test_no_upload_is_lost_and_the_board_is_fast(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "data", MS3, (1, 1, 8), 0, jobs=1)
    definition = Definition.parse(
        {
            "title": "load", "task": "ms3", "data": str(tmp_path / "data"), "protocol": "object/1",
            "metrics": ["J", "F"], "parts": {"private": 0.5},
            "phases": [{"name": "now", "start": "2020-01-01", "end": "2099-01-01"}],
            "limits": {"per_day": 100, "total": 100},
        },
        "the benchmark",
    )  # fmt: skip
    write_definition(tmp_path / "c", definition)
    with Challenge(tmp_path / "c") as challenge:
        tokens = [challenge.add_team(f"team {number}", "x") for number in range(CLIENTS)]
        paths = write_submissions(challenge, tmp_path)
        command = [sys.executable, "-m", "avsbench_harness", "challenge", "serve", "--port", "0"]
        process = subprocess.Popen(
            [*command, "--challenge", str(tmp_path / "c")],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[-1]
            measure(challenge, address, tokens, paths)
        finally:
            process.terminate()
            process.wait(60)
        assert audit(challenge, sample=3).faults == []


def measure(challenge: Challenge, address: str, tokens: list[str], paths: list[Path]) -> None:
    times: list[float] = []
    done = threading.Event()

    def watch_board() -> None:
        with httpx.Client(timeout=60) as client:
            while not done.is_set():
                start = time.perf_counter()
                assert client.get(f"{address}/board").status_code == 200
                times.append(time.perf_counter() - start)
                done.wait(0.2)

    def upload(number: int) -> list[str]:
        headers = {"authorization": f"Bearer {tokens[number]}", "accept": "application/json"}
        answers = []
        with httpx.Client(timeout=300, headers=headers) as client:
            for path in paths[number * UPLOADS : (number + 1) * UPLOADS]:
                with path.open("rb") as file:
                    answer = client.post(f"{address}/submit", files={"file": file})
                answers.append(answer.json()["ticket"])
        return answers

    watcher = threading.Thread(target=watch_board)
    watcher.start()
    start = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        tickets = [ticket for found in pool.map(upload, range(CLIENTS)) for ticket in found]
    uploaded = time.perf_counter() - start
    while challenge.snapshot().pending(1):
        time.sleep(1)
    scored = time.perf_counter() - start
    done.set()
    watcher.join()
    submissions = challenge.snapshot().submissions.values()
    assert sorted(one.ticket for one in submissions) == sorted(tickets)
    assert len(set(tickets)) == CLIENTS * UPLOADS
    assert {one.status for one in submissions} == {"scored"}
    p95 = statistics.quantiles(times, n=20)[-1]
    print(
        f"\n{len(tickets)} uploads in {uploaded:.1f} s, scored in {scored:.1f} s; "
        f"board: {len(times)} requests, median {1000 * statistics.median(times):.0f} ms, "
        f"p95 {1000 * p95:.0f} ms"
    )
    assert p95 < 0.2
