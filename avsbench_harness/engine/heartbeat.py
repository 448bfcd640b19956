"""Signs of life of whoever works on a run, in its ``heartbeat.json``, and the claims that they back.

A claim is a file lock. The kernel frees it when its holder dies on this machine, but a shared disk may keep
the lock of a machine that died, or may not pass locks between machines at all; there the heartbeat decides.
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


#: Seconds between heartbeats; a test may shorten it.
INTERVAL = float(os.environ.get("AVSB_HEARTBEAT_SECONDS", "10"))

#: The locks of a run's folder: of whoever carries the run out, and of its training.
CLAIM, TRAINING = ".claim", ".lock"

#: A process on another machine is taken for dead after so many intervals without a heartbeat.
MISSED = 12

# Seconds; whoever looks whether a lock is free holds it for an instant.
_GLANCE = 0.2


class Heartbeat(Schema):
    """What a process last said about the run that it works on.

    Attributes:
        host: name of its machine.
        pid: its number there.
        time: seconds since 1970.
        step: training steps done.
        total: steps in all, ``None`` before training has begun.
        clips_per_second: of training, over the last steps.
        seconds_left: of training.
        ended: the process has let go of the run.
        reason: why it could not work on it, one line.
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
        """Seconds since it was written."""
        return time.time() - self.time

    @property
    def here(self) -> bool:
        """Whether it comes from this machine."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether its process still works on the run, as far as can be told from here."""
        if self.ended:
            return False
        return process_exists(self.pid) if self.here else self.age <= MISSED * INTERVAL


def process_exists(pid: int) -> bool:
    """Whether a process of this machine exists; ``True`` where the system does not tell."""
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
    """The last heartbeat in a run's folder; ``None`` where there is none that can be read."""
    path = folder / "heartbeat.json"
    try:
        return Heartbeat.parse(read_json(path), str(path))
    except (OSError, UsageError):
        return None


def write_heartbeat(folder: Path, *, pid: int | None = None, **values: Any) -> None:
    """Write a heartbeat of this process, or of another on this machine; a full disk only loses the beat."""
    beat = Heartbeat(host=socket.gethostname(), pid=pid or os.getpid(), time=time.time(), **values)
    with suppress(OSError):
        write_json(folder / "heartbeat.json", beat.model_dump(mode="json"))


def keep_alive(folder: Path, pid: int) -> None:
    """Renew the heartbeat of a child that does not write one yet, or no more; cheap where it does."""
    last = read_heartbeat(folder)
    if last is None or last.ended or last.age > 2 * INTERVAL:
        write_heartbeat(folder, pid=pid, **_figures(last))


def take_claim(folder: Path, name: str) -> FileLock | None:
    """Lock a run's folder; ``None`` while somebody else works on it.

    A claim of a dead process is taken over and said in one line.

    Args:
        folder: of the run; it is made.
        name: of the lock's file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = read_heartbeat(folder)
    claim = _lock(folder / name, _GLANCE)
    if last is not None and not (last.here or last.ended or last.alive):
        for other in (CLAIM, TRAINING):  # its locks live on at the disk's server
            if claim is None or other != name:
                (folder / other).unlink(missing_ok=True)
        claim = claim or _lock(folder / name)
    elif claim is not None and last is not None and last.alive and not last.here:
        claim.release()  # this disk does not pass locks between machines
        return None
    if claim is not None and last is not None and not (last.ended or last.alive):
        logger.info(
            f"{folder.name}: taken over from process {last.pid} on {last.host}, silent for {last.age:.0f} s."
        )
    if claim is not None:
        write_heartbeat(folder, **_figures(last))
    return claim


def end_claim(folder: Path, claim: FileLock, reason: str = "") -> None:
    """Let go of a run; ``reason`` says why it could not be carried out."""
    write_heartbeat(folder, ended=True, reason=reason, **_figures(read_heartbeat(folder)))
    claim.release()


def is_worked_on(folder: Path) -> bool:
    """Whether somebody who is alive works on a run, without taking it from anybody."""
    return is_claimed(folder, CLAIM) or is_claimed(folder, TRAINING)


def is_claimed(folder: Path, name: str) -> bool:
    """Whether somebody who is alive holds one of a run's locks."""
    last = read_heartbeat(folder)
    lock = _lock(folder / name) if (folder / name).exists() else None
    if lock is not None:
        lock.release()
        return last is not None and last.alive and not last.here
    return (folder / name).exists() and (last is None or last.here or last.ended or last.alive)


class _Beating:
    """The thread that writes heartbeats, and the figures that it writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.figures = _figures(read_heartbeat(folder))
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def _beat(self) -> None:
        while not self.over.is_set():
            write_heartbeat(self.folder, **self.figures)
            self.over.wait(INTERVAL)


_current: _Beating | None = None


@contextmanager
def beating(folder: Path) -> Iterator[None]:
    """Write heartbeats while the block runs; inside such a block it does nothing."""
    global _current
    if _current is not None:
        yield
        return
    _current = _Beating(folder)
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
        write_heartbeat(folder, ended=True, reason=reason, **ending.figures)


def note_progress(step: int, total: int, clips_per_second: float, clips: int) -> None:
    """Tell how far training is, for the next heartbeat; ``clips`` is the number of clips per step."""
    if _current is not None:
        left = (total - step) * clips / clips_per_second if clips_per_second else None
        _current.figures = {
            "step": step,
            "total": total,
            "clips_per_second": clips_per_second,
            "seconds_left": left,
        }


def _figures(last: Heartbeat | None) -> dict[str, Any]:
    """What stays true of a heartbeat when somebody else writes the next one."""
    return {} if last is None else last.model_dump(include={"step", "total"})


def _lock(path: Path, patience: float = 0.0) -> FileLock | None:
    """The lock if it gets free within so many seconds; it may be given back in another thread."""
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        return None
    return lock
