"""Parallel work on clips in processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from avsbench_harness.data.clip import Clip


def each_clip(work: Callable[[Clip], int], clips: Sequence[Clip], jobs: int | None = None) -> Iterator[int]:
    """Yield the results of a function on every clip, in the order of the clips.

    Args:
        work: the function; it must be picklable.
        clips: the clips.
        jobs: processes; by default one per core. With one, the work is done in this process.
    """
    jobs = min(jobs or os.cpu_count() or 1, len(clips))
    if jobs <= 1:
        yield from map(work, clips)
        return
    # Spawned: forking a process that runs torch's threads can hang.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, clips, chunksize=4)
