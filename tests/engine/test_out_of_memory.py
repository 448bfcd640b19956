from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch

from avsbench_harness.data.batch import Batch
from avsbench_harness.engine import train as engine
from avsbench_harness.engine.out_of_memory import largest_batch
from avsbench_harness.engine.system import System
from avsbench_harness.errors import AvsbError


@pytest.mark.parametrize("limit", [0, 1, 2, 5, 63, 64, 99, 100])
def test_the_largest_batch_is_found_by_doubling_and_bisection(limit: int) -> None:
    tried = []

    def step(clips: int) -> None:
        tried.append(clips)
        if clips > limit:
            raise torch.OutOfMemoryError("too large")

    assert largest_batch(step, 101) == limit
    assert max(tried) <= 2 * limit + 1  # much too large sizes are never tried
    assert len(tried) == len(set(tried)) <= 14


def test_a_batch_of_one_that_does_not_fit_is_not_tried_again() -> None:
    def step(clips: int) -> None:
        raise AssertionError

    assert largest_batch(step, 1) == 0


def test_out_of_memory_names_the_largest_batch_that_fits(planned, tmp_path: Path, monkeypatch) -> None:
    real, held = System.losses, []

    def losses(self, batch: Batch):
        gc.collect()
        assert not [one for one in held if one() is not None], "tensors of the failed step are still alive"
        if batch.shape[0] > 2:
            activation = torch.ones(3)
            held.append(weakref.ref(activation))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, batch)

    run = planned(tmp_path, "batch_size=4")
    assert len(run.dataset.clips("train")) >= 4
    monkeypatch.setattr(System, "losses", losses)
    with pytest.raises(AvsbError) as caught:
        engine.train(run)
    assert str(caught.value) == (
        "Training ran out of memory on cpu with a batch of 4 clips of 5 frames at 32 pixels in fp32; "
        "a probe found that 2 fit: pass --set batch_size=2, or train in precision bf16."
    )
    assert caught.value.exit_code == 1
    assert len(held) == 2
    assert not run.weights_file.exists()
    assert not list(run.folder.rglob("*.tmp"))


def test_the_size_that_fits_is_that_of_the_whole_batch(planned, tmp_path: Path, monkeypatch) -> None:
    """Micro-batches of one clip fit."""
    real = System.losses

    def losses(self, batch: Batch):
        if batch.shape[0] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, batch)

    monkeypatch.setattr(System, "losses", losses)
    with pytest.raises(AvsbError, match="a batch of 4 clips .* found that 2 fit: pass --set batch_size=2"):
        engine.train(planned(tmp_path, "batch_size=4", "accumulate=2"))


def test_not_even_one_clip(planned, tmp_path: Path, monkeypatch) -> None:
    def losses(self, batch: Batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(System, "losses", losses)
    with pytest.raises(AvsbError, match="not even one fits: lower the recipe's image_size"):
        engine.train(planned(tmp_path))


@pytest.mark.gpu
def test_the_limit_of_the_cuda_allocator_is_found() -> None:
    unit = 64 * 2**20
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 5.5 * unit) / total)
    try:
        fits = largest_batch(
            lambda clips: torch.empty(clips * unit, dtype=torch.uint8, device="cuda").zero_(), 9
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert fits == 5
