"""What a network needs that keeps account of a whole batch in training, where several processes share it.

All processes must call these functions together; with one process they do nothing.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def of_all_processes(rows: Tensor) -> Tensor:
    """The rows (M,dim) of all processes in their order, without gradients; M may differ and be 0."""
    if not _several():
        return rows
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


@torch.no_grad()
def as_first_process(values: Tensor) -> None:
    """Overwrite a tensor by that of the first process: what came of random draws is then alike everywhere."""
    if _several():
        sent = values.contiguous()
        dist.broadcast(sent, src=0)
        values.copy_(sent)


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
