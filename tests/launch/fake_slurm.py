"""A SLURM cluster of one node, started for the tests."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])

CONF = """
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A requeued job waits until the credential of its last start has expired.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=5
SchedulerParameters=sched_interval=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} CPUs={cores} State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The cluster, in ``SLURM_CONF``; skips with the reason where it cannot be started."""
    programs = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
    missing = [name for name in programs if shutil.which(name, path=SBIN) is None]
    if missing:
        pytest.skip(f"needs SLURM: there is no {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    conf = folder / "slurm.conf"
    conf.write_text(
        CONF.format(
            host=socket.gethostname().split(".")[0],
            user=getpass.getuser(),
            folder=folder,
            cores=os.cpu_count(),
            controller=free_port(),
            node=free_port(),
        )
    )
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    patch = pytest.MonkeyPatch()
    patch.setenv("SLURM_CONF", str(conf))
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        munge = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
        munge += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
        for command in (munge, ["slurmctld", "-D", "-i"], ["slurmd", "-D"]):
            daemons.append(start(command, folder))
            time.sleep(1)
        if not is_idle(daemons):
            words = {path.name: path.read_text().splitlines()[-1:] for path in sorted(folder.glob("*.out"))}
            pytest.skip(f"needs SLURM, which does not start here: {words}")
        yield
        is_idle(daemons)  # a job's last process reports to the daemons, and stays if they are gone
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(60)
        patch.undo()


def start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    program = shutil.which(command[0], path=SBIN)
    assert program is not None  # it was looked for before
    with (folder / f"{command[0]}.out").open("wb") as output:
        return subprocess.Popen([program, *command[1:]], stdout=output, stderr=subprocess.STDOUT)


def is_idle(daemons: list[subprocess.Popen[bytes]]) -> bool:
    """Whether the node becomes idle within 30 seconds."""
    until = time.monotonic() + 30
    while time.monotonic() < until and all(daemon.poll() is None for daemon in daemons):
        state = subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True).stdout.strip()
        if state == "idle":
            return True
        time.sleep(0.5)
    return False


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])
