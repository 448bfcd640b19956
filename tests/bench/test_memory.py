from __future__ import annotations

from pathlib import Path

import pytest

from avsbench_harness.bench.memory import run_batch, training_peak
from avsbench_harness.errors import AvsbError
from avsbench_harness.launch.benchmark import without_encoder


def test_the_batch_matches_the_audio_encoder(planned, tmp_path: Path) -> None:
    run = planned(tmp_path, "batch_size=3", "frames=2", "image_size=16")
    assert run.spec.audio.trained
    assert run_batch(run).audio.shape == (3, 2, 1, 96, 64)
    assert run_batch(run).shape == (3, 2, 16, 16)
    assert run_batch(without_encoder(run)).audio.shape == (3, 2, 128)


@pytest.mark.slow
def test_memory_on_the_cpu_is_measured_in_a_fresh_process(planned, tiny: str, tmp_path: Path) -> None:
    run = without_encoder(planned(tmp_path, "image_size=256", "batch_size=8"))
    batch = run_batch(run)
    size = sum(t.numel() * t.element_size() for t in (batch.images, batch.maskige, batch.masks)) / 2**30
    assert size < training_peak(run, tiny) < 10 * size


@pytest.mark.slow
def test_a_process_killed_for_its_memory(planned, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(AvsbError, match="a batch of 2 clips takes more memory than there is; pass a smaller"):
        training_peak(planned(tmp_path / "out"), str(killed))


@pytest.mark.gpu
def test_memory_on_cuda_is_that_of_the_allocator(planned, tiny: str, tmp_path: Path) -> None:
    import dataclasses

    run = without_encoder(planned(tmp_path, "image_size=256", "batch_size=8"))
    run = dataclasses.replace(run, device="cuda")
    batch = run_batch(run)
    size = sum(t.numel() * t.element_size() for t in (batch.images, batch.maskige, batch.masks)) / 2**30
    del batch
    assert size < training_peak(run, tiny) < 10 * size
