"""Heartbeats of the process that works on a run, in its ``heartbeat.json``, and the claims on runs.

A claim is a file lock. The kernel releases it when its holder dies on this machine, but a shared file system
may keep the lock of a machine that died, or may not share locks between machines; there heartbeats decide.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from avsbench_harness.errors import Interrupted, TooManyProcesses, UsageError, one_line
from avsbench_harness.files import read_json, write_json
from avsbench_harness.schema import Schema

logger = logging.getLogger(__name__)


#: Seconds between heartbeats; tests shorten it.
INTERVAL = float(os.environ.get("AVSB_HEARTBEAT_SECONDS", "10"))

#: The locks of a run's folder: of the process that executes the run, and of its training.
CLAIM, TRAINING = ".claim", ".lock"

#: A process on another machine counts as dead after this many intervals without a heartbeat.
MISSED = 12

# Seconds; a process that tests whether a lock is free holds it briefly.
_LOCK_TIMEOUT = 0.2


class Heartbeat(Schema):
    """The last heartbeat of a process that works on a run.

    Attributes:
        host: name of its machine.
        pid: its process id.
        time: seconds since 1970.
        step: training steps done.
        total: number of training steps, ``None`` before training.
        clips_per_second: of training, over the last steps.
        seconds_left: estimated remaining training time.
        ended: whether the process has released the run.
        reason: of a failure, one line.
    """

    host: str
    pid: int
    time: float
    step: int = 0
    total: int | None = None
    clips_per_second: float | None = None
    seconds_left: float | None = None
    ended: bool = False
    reason: str = ""

    @property
    def age(self) -> float:
        """Seconds since the heartbeat."""
        return time.time() - self.time

    @property
    def here(self) -> bool:
        """Whether the process is on this machine."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether the process still works on the run, as far as this machine can tell."""
        if self.ended:
            return False
        return process_exists(self.pid) if self.here else self.age <= MISSED * INTERVAL


def process_exists(pid: int) -> bool:
    """Whether a process of this machine exists; ``True`` where the system does not report it."""
    if os.name == "nt":  # signal 0 would end the process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read_heartbeat(folder: Path) -> Heartbeat | None:
    """The last heartbeat in a run's folder; ``None`` if there is none or it is unreadable."""
    path = folder / "heartbeat.json"
    try:
        return Heartbeat.parse(read_json(path), str(path))
    except (OSError, UsageError):
        return None


def write_heartbeat(folder: Path, *, pid: int | None = None, **values: Any) -> None:
    """Write a heartbeat of this or another local process; errors of the disk are ignored."""
    beat = Heartbeat(host=socket.gethostname(), pid=pid or os.getpid(), time=time.time(), **values)
    with suppress(OSError):
        write_json(folder / "heartbeat.json", beat.model_dump(mode="json"))


def keep_alive(folder: Path, pid: int) -> None:
    """Write the heartbeat of a child process that does not write its own."""
    last = read_heartbeat(folder)
    if last is None or last.ended or last.age > 2 * INTERVAL:
        write_heartbeat(folder, pid=pid, **_progress(last))


def take_claim(folder: Path, name: str) -> FileLock | None:
    """Lock a run's folder; ``None`` while another live process holds it.

    The claim of a dead process is reclaimed and logged.

    Args:
        folder: of the run; created if missing.
        name: file name of the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = read_heartbeat(folder)
    claim = _lock(folder / name, _LOCK_TIMEOUT)
    if last is not None and not (last.here or last.ended or last.alive):
        for other in (CLAIM, TRAINING):  # its locks persist on the file server
            if claim is None or other != name:
                (folder / other).unlink(missing_ok=True)
        claim = claim or _lock(folder / name)
    elif claim is not None and last is not None and last.alive and not last.here:
        claim.release()  # this file system does not share locks between machines
        return None
    if claim is not None and last is not None and not (last.ended or last.alive):
        logger.info(
            f"{folder.name}: reclaimed from process {last.pid} on {last.host}, "
            f"last heartbeat {last.age:.0f} s ago."
        )
    if claim is not None:
        write_heartbeat(folder, **_progress(last))
    return claim


def end_claim(folder: Path, claim: FileLock, reason: str = "") -> None:
    """Release a run; ``reason`` is that of a failure."""
    write_heartbeat(folder, ended=True, reason=reason, **_progress(read_heartbeat(folder)))
    claim.release()


def is_worked_on(folder: Path) -> bool:
    """Whether a live process works on a run; does not reclaim it."""
    return is_claimed(folder, CLAIM) or is_claimed(folder, TRAINING)


def is_claimed(folder: Path, name: str) -> bool:
    """Whether a live process holds one of a run's locks."""
    last = read_heartbeat(folder)
    lock = _lock(folder / name) if (folder / name).exists() else None
    if lock is not None:
        lock.release()
        return last is not None and last.alive and not last.here
    return (folder / name).exists() and (last is None or last.here or last.ended or last.alive)


class _HeartbeatThread:
    """The thread that writes heartbeats, and the progress fields that it writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.progress = _progress(read_heartbeat(folder))
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def _beat(self) -> None:
        while not self.over.is_set():
            write_heartbeat(self.folder, **self.progress)
            self.over.wait(INTERVAL)


_current: _HeartbeatThread | None = None


@contextmanager
def beating(folder: Path) -> Iterator[None]:
    """Write heartbeats during the block; a no-op inside such a block."""
    global _current
    if _current is not None:
        yield
        return
    _current = _HeartbeatThread(folder)
    reason = ""
    try:
        _current.thread.start()
        yield
    except (Interrupted, TooManyProcesses):
        raise
    except Exception as error:
        reason = one_line(error)
        raise
    finally:
        ending, _current = _current, None
        ending.over.set()
        ending.thread.join()
        write_heartbeat(folder, ended=True, reason=reason, **ending.progress)


def note_progress(step: int, total: int, clips_per_second: float, clips: int) -> None:
    """Set the progress for the next heartbeats; ``clips`` is the number of clips per step."""
    if _current is not None:
        left = (total - step) * clips / clips_per_second if clips_per_second else None
        _current.progress = {
            "step": step,
            "total": total,
            "clips_per_second": clips_per_second,
            "seconds_left": left,
        }


def _progress(last: Heartbeat | None) -> dict[str, Any]:
    """The fields of a heartbeat that its successor keeps."""
    return {} if last is None else last.model_dump(include={"step", "total"})


def _lock(path: Path, timeout: float = 0.0) -> FileLock | None:
    """Acquire a lock within ``timeout`` seconds, else ``None``; another thread may release it."""
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        return None
    return lock
