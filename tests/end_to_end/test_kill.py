"""A run that is killed at random times is bitwise identical to an uninterrupted run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.files import sha256_file
from avsbench_harness.results.record import read_records

KILLS = 4


def command(tiny: str, real_s4: Path, out: Path) -> list[str]:
    return [
        sys.executable, "-m", "avsbench_harness", "run", "--method", tiny, "--data", str(real_s4),
        "--out", str(out), "--device", "cpu", "--set", "epochs=12",
    ]  # fmt: skip


def environment(cache: Path, **extra: str) -> dict[str, str]:
    return {**os.environ, "AVSB_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1", **extra}


@pytest.mark.slow
def test_sigkill_does_not_change_the_result(tiny: str, real_s4: Path, tmp_path: Path, cache: Path) -> None:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    draw = random.Random(seed)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(tiny, real_s4, whole), check=True, env=environment(cache))
    # Slow steps, each followed by a checkpoint, so that kills hit both.
    slow = environment(cache, AVSB_TEST_STEP_SECONDS="0.2", AVSB_CHECKPOINT_SECONDS="0")
    kills = 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            command(tiny, real_s4, killed), env=slow, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_a_step(killed, process)
        time.sleep(draw.uniform(0, 1.2))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 2, "the run ended before it was killed"
    subprocess.run(command(tiny, real_s4, killed), check=True, env=environment(cache))

    (one,), (two,) = (read_records(folder / "results") for folder in (whole, killed))
    assert one.training is not None
    assert two.training is not None
    assert one.training.weights_sha256 == two.training.weights_sha256
    assert one.training.validations == two.training.validations
    assert one.scores == two.scores
    assert sha256_file(whole / "submissions" / f"{one.run_id}.npz") == sha256_file(
        killed / "submissions" / f"{one.run_id}.npz"
    )
    left = {path.name for path in (killed / "runs" / one.run_id).iterdir()}
    kept = {
        "spec.json",
        "log.jsonl",
        "training.json",
        "weights.safetensors",
        "heartbeat.json",
        "provenance.json",
    }
    assert left == {".lock", *kept}


def wait_for_a_step(out: Path, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    """Wait until the run writes another line to its log, or ends."""
    end = time.monotonic() + seconds
    before = sum(path.stat().st_size for path in out.glob("runs/*/log.jsonl"))
    while time.monotonic() < end and process.poll() is None:
        if sum(path.stat().st_size for path in out.glob("runs/*/log.jsonl")) > before:
            return
        time.sleep(0.05)
