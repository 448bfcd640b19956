from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from filelock import FileLock

from avsbench_harness.engine import heartbeat
from avsbench_harness.engine.heartbeat import (
    Heartbeat,
    beating,
    end_claim,
    is_claimed,
    keep_alive,
    note_progress,
    read_heartbeat,
    take_claim,
)
from avsbench_harness.engine.interrupt import stop_request
from avsbench_harness.errors import AvsbError, Interrupted
from avsbench_harness.files import write_json

LONG = heartbeat.MISSED * heartbeat.INTERVAL


def beat_of(folder: Path, *, host: str = "elsewhere", pid: int = 1, age: float = 0.0, **values) -> None:
    beat = Heartbeat(host=host, pid=pid, time=time.time() - age, **values)
    write_json(folder / "heartbeat.json", beat.model_dump(mode="json"))


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_heartbeats_hold_the_progress(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.02)
    with beating(tmp_path):
        with beating(tmp_path / "inner"):
            note_progress(3, 10, 4.0, 2)
        until = time.monotonic() + 60
        while (beat := read_heartbeat(tmp_path)) is None or beat.step == 0:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert (beat.step, beat.total, beat.clips_per_second, beat.seconds_left) == (3, 10, 4.0, 3.5)
        assert beat.pid == os.getpid()
        assert beat.here
        assert beat.alive
    after = read_heartbeat(tmp_path)
    assert after is not None
    assert after.ended
    assert not after.alive
    assert after.step == 3
    assert not (tmp_path / "inner").exists()


def test_the_last_heartbeat_holds_the_reason(tmp_path: Path) -> None:
    with pytest.raises(AvsbError), beating(tmp_path):
        raise AvsbError("There is\nno data.")
    beat = read_heartbeat(tmp_path)
    assert beat is not None
    assert beat.reason == "There is no data."
    with pytest.raises(Interrupted), beating(tmp_path):
        raise Interrupted("Stopped.", 143)
    beat = read_heartbeat(tmp_path)
    assert beat is not None
    assert beat.reason == ""


def test_a_damaged_heartbeat_is_none(tmp_path: Path) -> None:
    (tmp_path / "heartbeat.json").write_text('{"host": 3')
    assert read_heartbeat(tmp_path) is None
    (tmp_path / "heartbeat.json").write_text("[]")
    assert read_heartbeat(tmp_path) is None


def test_a_claim_is_exclusive(tmp_path: Path) -> None:
    assert not is_claimed(tmp_path, ".claim")
    claim = take_claim(tmp_path, ".claim")
    assert claim is not None
    assert take_claim(tmp_path, ".claim") is None
    assert is_claimed(tmp_path, ".claim")
    end_claim(tmp_path, claim)
    assert not is_claimed(tmp_path, ".claim")
    assert take_claim(tmp_path, ".claim") is not None


def test_the_claim_of_a_dead_local_process_is_reclaimed(tmp_path: Path, dead_pid: int, caplog) -> None:
    import socket

    caplog.set_level("INFO", logger="avsbench_harness")
    beat_of(tmp_path, host=socket.gethostname(), pid=dead_pid, step=7, total=9)
    claim = take_claim(tmp_path, ".claim")
    assert claim is not None
    (message,) = caplog.messages
    assert f"reclaimed from process {dead_pid} on {socket.gethostname()}" in message
    beat = read_heartbeat(tmp_path)
    assert beat is not None
    assert (beat.pid, beat.step, beat.total) == (os.getpid(), 7, 9)
    claim.release()


def test_the_lock_of_a_dead_machine_is_reclaimed(tmp_path: Path, caplog) -> None:
    """A file server keeps the lock of a dead machine; here another holder keeps it."""
    caplog.set_level("INFO", logger="avsbench_harness")
    with FileLock(tmp_path / ".claim", is_singleton=False):
        beat_of(tmp_path, age=LONG - 5)
        assert take_claim(tmp_path, ".claim") is None
        assert is_claimed(tmp_path, ".claim")
        beat_of(tmp_path, age=LONG + 5)
        assert not is_claimed(tmp_path, ".claim")
        claim = take_claim(tmp_path, ".claim")
        assert claim is not None
        assert "reclaimed from process 1 on elsewhere, last heartbeat 125 s ago" in caplog.text
        assert take_claim(tmp_path, ".claim") is None
        claim.release()


@pytest.mark.parametrize("held", [(".claim", ".lock"), (".lock",)])
def test_all_locks_of_a_dead_machine_are_reclaimed(tmp_path: Path, held: tuple[str, ...]) -> None:
    """A sweep holds the claim, and its run the training lock; either may have died."""
    with ExitStack() as stack:
        for name in held:
            stack.enter_context(FileLock(tmp_path / name, is_singleton=False))
        beat_of(tmp_path, age=LONG + 5)
        claims = [take_claim(tmp_path, name) for name in (".claim", ".lock")]
        assert all(claims)
        for claim in claims:
            claim.release()


def test_a_file_system_that_does_not_share_locks(tmp_path: Path) -> None:
    """A machine whose locks are invisible here holds the run as long as it writes heartbeats."""
    beat_of(tmp_path, age=1)
    assert take_claim(tmp_path, ".claim") is None
    assert is_claimed(tmp_path, ".claim")
    beat_of(tmp_path, age=1, ended=True)
    assert not is_claimed(tmp_path, ".claim")
    claim = take_claim(tmp_path, ".claim")
    assert claim is not None
    claim.release()


def test_heartbeats_for_a_child_process(tmp_path: Path) -> None:
    keep_alive(tmp_path, os.getpid())
    first = (tmp_path / "heartbeat.json").stat().st_mtime_ns
    keep_alive(tmp_path, os.getpid())
    assert (tmp_path / "heartbeat.json").stat().st_mtime_ns == first
    beat_of(tmp_path, age=3 * heartbeat.INTERVAL, step=4)
    keep_alive(tmp_path, os.getpid())
    beat = read_heartbeat(tmp_path)
    assert beat is not None
    assert (beat.pid, beat.step) == (os.getpid(), 4)
    assert beat.age < 5


def test_a_preemption_signal_and_sigterm_are_one_stop() -> None:
    before = signal.getsignal(signal.SIGUSR2)
    with stop_request() as stop:
        signal.raise_signal(signal.SIGUSR2)
        assert stop.error("").exit_code == 128 + signal.SIGUSR2
        signal.raise_signal(signal.SIGTERM)
        assert stop.error("").exit_code == 143
        signal.raise_signal(signal.SIGUSR1)
        assert stop.error("").exit_code == 143
        with pytest.raises(Interrupted, match="second signal"):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGUSR2) is before
