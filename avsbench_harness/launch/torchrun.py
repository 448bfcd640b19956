"""One run in several processes of this machine, through ``torchrun``; its outcome as one error message."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from avsbench_harness.distributed import PeerFailedError
from avsbench_harness.engine.interrupt import PREEMPTION
from avsbench_harness.errors import AvsbError, UsageError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

#: Exit codes of processes that have printed the reason themselves.
_REPORTED = (1, 2, 3, 4, 130, 143, *(128 + notice for notice in PREEMPTION))


def torchrun(processes: int, arguments: Sequence[str]) -> None:
    """Run ``torchrun --standalone --nproc-per-node N -m avsbench_harness`` with these arguments.

    Raises:
        UsageError: the number is below 1, or this process was started by torchrun.
        PeerFailedError: a process failed and printed the reason itself, SIGTERM and SIGINT included.
        AvsbError: a process ended without a message; the error names it.
    """
    if processes < 1:
        raise UsageError(f"--nproc must be 1 or more, got {processes}.")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UsageError("These processes were started by torchrun; leave --nproc out.")
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # Each process gets its share of the cores; torchrun would give it one thread.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    # Their long reports are replaced by one sentence below.
    for name in ("torch.distributed.elastic", "torch.distributed.run", "torch.distributed.launcher"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    launch = ["--standalone", f"--nproc-per-node={processes}", "--module", "avsbench_harness", *arguments]
    try:
        run.run(run.parse_args(launch))
    except SignalException as error:  # the processes handle it themselves
        raise PeerFailedError(130 if error.sigval == signal.SIGINT else 143) from None
    except ChildFailedError as error:
        raise _reason(error.failures, processes) from None


def _reason(failures: dict[int, ProcessFailure], processes: int) -> AvsbError:
    """The error of the process that probably failed first.

    When one process fails, torchrun terminates the others (SIGTERM), or they fail because they lost it.
    """

    def priority(item: tuple[int, ProcessFailure]) -> tuple[int, int]:
        rank, failure = item
        killed = failure.exitcode < 0
        return (2 if failure.exitcode == -signal.SIGTERM else 0 if killed else 1), rank

    rank, failure = min(failures.items(), key=priority)
    if failure.exitcode in _REPORTED:
        return PeerFailedError(failure.exitcode)
    how = (
        f"was killed by {signal.Signals(-failure.exitcode).name}"
        if failure.exitcode < 0
        else f"ended with exit code {failure.exitcode}"
    )
    return AvsbError(
        f"Process {rank} of {processes} {how}; rerun the same command, with any number of processes, to "
        "resume from the last checkpoint."
    )
