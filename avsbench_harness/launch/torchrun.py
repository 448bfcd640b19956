"""One run by several processes of this machine: what ``torchrun`` does, and how it ended in one sentence."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from avsbench_harness.distributed import PeerFailedError
from avsbench_harness.engine.interrupt import NOTICES
from avsbench_harness.errors import AvsbError, UsageError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

#: Exit codes of processes that have said themselves why they ended.
_SPOKEN = (1, 2, 3, 4, 130, 143, *(128 + notice for notice in NOTICES))


def torchrun(processes: int, arguments: Sequence[str]) -> None:
    """``torchrun --standalone --nproc-per-node N -m avsbench_harness`` with these arguments.

    Raises:
        UsageError: the number is below 1, or torchrun has started this process already.
        EndedElsewhere: a process ended and said itself why; SIGTERM and SIGINT are among the reasons.
        AvsbError: a process ended without a word; the message names it.
    """
    if processes < 1:
        raise UsageError(f"--nproc must be 1 or more, got {processes}.")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UsageError("torchrun has started these processes already; leave --nproc out.")
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # Each takes its share of the cores; torchrun itself would give it one thread.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    # What these would tell at length is said in one sentence below.
    for name in ("torch.distributed.elastic", "torch.distributed.run", "torch.distributed.launcher"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    launch = ["--standalone", f"--nproc-per-node={processes}", "--module", "avsbench_harness", *arguments]
    try:
        run.run(run.parse_args(launch))
    except SignalException as error:  # passed on to the processes, which have saved their state and said so
        raise PeerFailedError(130 if error.sigval == signal.SIGINT else 143) from None
    except ChildFailedError as error:
        raise _reason(error.failures, processes) from None


def _reason(failures: dict[int, ProcessFailure], processes: int) -> AvsbError:
    """The error to end with: of the process that ended first, as far as can be told.

    When one ends, torchrun stops the others by SIGTERM, or they fail for having lost it.
    """

    def place(item: tuple[int, ProcessFailure]) -> tuple[int, int]:
        rank, failure = item
        killed = failure.exitcode < 0
        return (2 if failure.exitcode == -signal.SIGTERM else 0 if killed else 1), rank

    rank, failure = min(failures.items(), key=place)
    if failure.exitcode in _SPOKEN:
        return PeerFailedError(failure.exitcode)
    how = (
        f"was killed by {signal.Signals(-failure.exitcode).name}"
        if failure.exitcode < 0
        else f"ended with exit code {failure.exitcode}"
    )
    return AvsbError(
        f"Process {rank} of {processes} {how}; the same command, with any number of processes, goes on from "
        "the last checkpoint."
    )
