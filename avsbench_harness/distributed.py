"""Several processes on one run, as torchrun starts them: rank, world size and collectives.

A process reads its rank from the environment (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR``).
Without these there is one process, and every function here is a no-op. Only rank 0 writes files and logs.
All processes see the same files: on several machines, those of a shared file system. Collectives must be
called by all processes.
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

#: Timeout of collectives: rank 0 may have a whole data set to prepare.
TIMEOUT = timedelta(hours=24)


class PeerFailedError(AvsbError):
    """Another process of this run failed and has reported its error."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("Another process of this run failed.")
        self.exit_code = exit_code


def world_size() -> int:
    """Number of processes of the run."""
    started = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"))
    return int(os.environ["WORLD_SIZE"]) if started else 1


def rank() -> int:
    """Rank of this process; 0 writes and logs."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


def even_slice(count: int, parts: int, index: int) -> slice:
    """The ``index``-th of ``parts`` consecutive slices of ``count`` items, of nearly equal length.

    With fewer items than parts, the first slices are the non-empty ones.
    """
    return slice(-(-count * index // parts), -(-count * (index + 1) // parts))


def local_device(device: str) -> str:
    """The device of this process; on CUDA each process has its own.

    Raises:
        UsageError: a single device was requested, there are not enough, or torch lacks NCCL.
    """
    if world_size() == 1 or not device.startswith("cuda"):
        return device
    import torch
    import torch.distributed as dist

    if device != "cuda":
        raise UsageError(
            f"With several processes each has a device of its own; pass --device cuda, not {device}."
        )
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
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
def process_group() -> Iterator[None]:
    """Initialise the process group for the duration of the block."""
    if world_size() == 1:
        yield
        return
    # Otherwise every process warns that all parameters have gradients, which is expected.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import torch
    import torch.distributed as dist

    # Tensors on the CPU, such as masks to be gathered, go through gloo beside NCCL.
    both = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if both else "gloo", timeout=TIMEOUT)
    try:
        yield
        broadcast(None)  # barrier: rank 0 may still have something to write
    except RuntimeError as error:
        if not _is_connection_loss(error):
            raise
        raise AvsbError(
            f"Process {rank()} of {world_size()} lost the connection to another one; rerun the same command, "
            "with any number of processes, to resume from the last checkpoint."
        ) from error
    dist.destroy_process_group()


def should_report_error() -> bool:
    """Whether this process prints its error: the first one that fails does, the others do not."""
    if world_size() == 1:
        return True
    import torch.distributed as dist

    try:
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(*address, timeout=timedelta(seconds=10))  # type: ignore[attr-defined]
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return int(store.add(f"avsb/failed/{attempt}", 1)) == 1
    except (RuntimeError, KeyError):  # the process that hosts the store has ended
        return rank() == 0


def hard_exit(code: str | int | None) -> None:
    """End one of several processes without interpreter shutdown; a no-op with one process.

    Threads of the process group can abort the process during interpreter shutdown.
    """
    if world_size() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


@contextmanager
def main_process_first() -> Iterator[None]:
    """Run the block in rank 0 before the others: it prepares files that they then find.

    Raises:
        PeerFailedError: rank 0 failed in it.
    """
    if world_size() == 1:
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
            broadcast(code)
        return
    failed = broadcast(None)
    if failed is not None:
        raise PeerFailedError(failed)
    yield


def broadcast(value: Value) -> Value:
    """Rank 0's value, on every rank."""
    if world_size() == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: Value) -> list[Value]:
    """The values of all ranks in order, on rank 0; an empty list elsewhere."""
    if world_size() == 1:
        return [value]
    import torch.distributed as dist

    box: list[Any] | None = [None] * world_size() if rank() == 0 else None
    dist.gather_object(value, box)
    return box or []


def all_reduce_max(value: int) -> int:
    """The maximum over the ranks."""
    if world_size() == 1:
        return value
    import torch
    import torch.distributed as dist

    box = torch.tensor(value)
    dist.all_reduce(box, dist.ReduceOp.MAX)
    return int(box)


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum of the ranks' tensors, on their device."""
    if world_size() > 1:
        import torch.distributed as dist

        values = values.clone()
        dist.all_reduce(values)
    return values


def all_gather_rows(rows: Tensor) -> Tensor:
    """The rows (M,dim) of all ranks in order, without gradients; M may differ between ranks and be 0."""
    if not _is_initialized():
        return rows
    import torch
    import torch.distributed as dist

    rows = rows.detach().contiguous()
    own = torch.tensor(len(rows), device=rows.device)
    counts = [torch.zeros_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, own)
    longest = int(torch.stack(counts).max())
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    found = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(found, padded)
    return torch.cat([part[: int(count)] for part, count in zip(found, counts, strict=True)])


def broadcast_tensor_(values: Tensor) -> None:
    """Overwrite a tensor with rank 0's, in place; without gradients."""
    if not _is_initialized():
        return
    import torch
    import torch.distributed as dist

    with torch.no_grad():
        sent = values.contiguous()
        dist.broadcast(sent, src=0)
        values.copy_(sent)


def _is_initialized() -> bool:
    """Whether a process group of several processes exists; networks may run in one without the other."""
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _is_connection_loss(error: RuntimeError) -> bool:
    """Whether a collective failed because its peer is gone."""
    import torch.distributed as dist

    words = ("connection closed", "connection reset", "connection refused", "broken pipe", "socket")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)
