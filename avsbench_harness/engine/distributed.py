"""Several processes on one run, as torchrun starts them: who they are, and what they agree on.

A process knows its place from the environment (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR``).
Without these there is one process, and everything here does nothing. Only rank 0 writes files and speaks.
All processes see the same files: on several machines, those of a shared file system.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from avsbench_harness.errors import AvsbError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")

#: How long a process waits for others that are alive: rank 0 may have a whole data set to prepare.
PATIENCE = timedelta(hours=24)


class EndedElsewhere(AvsbError):
    """Another process of this run failed and has said why."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("Another process of this run failed.")
        self.exit_code = exit_code


def world() -> int:
    """How many processes work on the run."""
    started = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"))
    return int(os.environ["WORLD_SIZE"]) if started else 1


def rank() -> int:
    """Which of them this is; 0 writes and speaks."""
    return int(os.environ["RANK"]) if world() > 1 else 0


def share(count: int, parts: int, index: int) -> slice:
    """The ``index``-th of ``parts`` consecutive parts of ``count`` things, as equal as can be.

    Where there are fewer things than parts, the first ones have something.
    """
    return slice(-(-count * index // parts), -(-count * (index + 1) // parts))


def own_device(device: str) -> str:
    """The device of this process: on CUDA each has its own.

    Raises:
        UsageError: a single device was asked for, there are not enough, or torch lacks NCCL.
    """
    if world() == 1 or not device.startswith("cuda"):
        return device
    import torch
    import torch.distributed as dist

    if device != "cuda":
        raise UsageError(
            f"With several processes each has a device of its own; pass --device cuda, not {device}."
        )
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", world()))
    devices = torch.cuda.device_count()
    if processes > devices:
        raise UsageError(
            f"{processes} processes need a CUDA device each, and there are {devices}; start fewer, or pass "
            "--device cpu."
        )
    if not dist.is_nccl_available():
        raise UsageError("Several processes on CUDA need NCCL, which this torch lacks; pass --device cpu.")
    own = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    torch.cuda.set_device(own)
    return own


@contextmanager
def session() -> Iterator[None]:
    """Join the other processes of the run while the block runs."""
    if world() == 1:
        yield
        return
    # Else every process warns that all parameters have gradients, which is as it should be.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import torch
    import torch.distributed as dist

    # Tensors on the CPU, such as masks to be gathered, go through gloo beside NCCL.
    both = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if both else "gloo", timeout=PATIENCE)
    try:
        yield
        shared(None)  # leave together: rank 0 may still have something to write
    except RuntimeError as error:
        if not _is_lost(error):
            raise
        raise AvsbError(
            f"Process {rank()} of {world()} lost another one; the same command, with any number of "
            "processes, goes on from the last checkpoint."
        ) from error
    dist.destroy_process_group()


def speaks() -> bool:
    """Whether an error should be printed here: by the first process that fails, and not by the others."""
    if world() == 1:
        return True
    import torch.distributed as dist

    try:
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(*place, timeout=timedelta(seconds=10))  # type: ignore[attr-defined]
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return int(store.add(f"avsb/failed/{attempt}", 1)) == 1
    except (RuntimeError, KeyError):  # whoever kept the store is gone
        return rank() == 0


def leave(code: str | int | None) -> None:
    """End a process that is one of several; does nothing with one.

    Threads of the process group would now and then abort the process while Python takes itself apart.
    """
    if world() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


@contextmanager
def first() -> Iterator[None]:
    """Let rank 0 run the block before the others: it prepares files that they then find.

    Raises:
        EndedElsewhere: rank 0 failed in it.
    """
    if world() == 1:
        yield
        return
    if rank() == 0:
        code: int | None = 1
        try:
            yield
            code = None
        except AvsbError as error:
            code = error.exit_code
            raise
        finally:
            shared(code)
        return
    failed = shared(None)
    if failed is not None:
        raise EndedElsewhere(failed)
    yield


def shared(value: Value) -> Value:
    """Rank 0's value, everywhere."""
    if world() == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gathered(value: Value) -> list[Value]:
    """The values of all ranks in their order, on rank 0; nothing elsewhere."""
    if world() == 1:
        return [value]
    import torch.distributed as dist

    box: list[Any] | None = [None] * world() if rank() == 0 else None
    dist.gather_object(value, box)
    return box or []


def highest(value: int) -> int:
    """The largest of the ranks' numbers."""
    if world() == 1:
        return value
    import torch
    import torch.distributed as dist

    box = torch.tensor(value)
    dist.all_reduce(box, dist.ReduceOp.MAX)
    return int(box)


def summed(values: Tensor) -> Tensor:
    """The sum of the ranks' tensors, on their device."""
    if world() > 1:
        import torch.distributed as dist

        values = values.clone()
        dist.all_reduce(values)
    return values


def _is_lost(error: RuntimeError) -> bool:
    """Whether a collective failed because its other side is gone."""
    import torch.distributed as dist

    words = ("connection closed", "connection reset", "connection refused", "broken pipe", "socket")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)
