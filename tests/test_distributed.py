"""Several processes on one run, as torchrun starts them, with gloo."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from avsbench_harness import distributed
from avsbench_harness.bench.memory import run_batch
from avsbench_harness.distributed import even_slice, local_device
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.system import build_system
from avsbench_harness.engine.train import train
from avsbench_harness.errors import UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.launch.execute import execute
from avsbench_harness.launch.status import state_of

#: Without batch statistics and random draws; the second batch of an epoch has one clip, less than processes.
SPLITTABLE = (
    "options.dropout=0", "backbone.freeze_norm=true", "backbone.freeze_epochs=1", "iterations=20",
    "batch_size=3", "validation.every_steps=10",
)  # fmt: skip


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def arguments(run: Run, *assignments: str) -> list[str]:
    """A planned run as command-line options."""
    options = ["--method", str(run.method.folder), "--data", str(run.dataset.root), "--out", str(run.out)]
    options += ["--device", "cpu", "--workers", "0", "--preset", "full"]
    return options + [text for assignment in assignments for text in ("--set", assignment)]


def command_line(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "avsbench_harness", *map(str, command)],
        env=environment(), capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip


def losses(run: Run) -> list[float]:
    lines = map(json.loads, (run.folder / "log.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize(("count", "parts"), [(7, 3), (2, 3), (1, 4), (6, 2)])
def test_even_slices_cover_all_items(count: int, parts: int) -> None:
    places = [even_slice(count, parts, index) for index in range(parts)]
    assert [index for place in places for index in range(count)[place]] == list(range(count))
    sizes = [place.stop - place.start for place in places]
    assert max(sizes) - min(sizes) <= 1
    assert sizes[0] > 0


def test_collectives_of_one_process() -> None:
    assert (distributed.world_size(), distributed.rank()) == (1, 0)
    with distributed.process_group(), distributed.main_process_first():
        assert distributed.broadcast("mine") == "mine"
    assert distributed.gather(1) == [1]
    assert local_device("cuda:1") == "cuda:1"


def test_every_process_has_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "x"}
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="2 processes need a CUDA device each, and there are 1"):
        local_device("cuda")
    with pytest.raises(UsageError, match="pass --device cuda, not cuda:0"):
        local_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    with pytest.raises(UsageError, match="need NCCL, which this torch lacks"):
        local_device("cuda")
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    assert local_device("cuda") == "cuda:1"
    assert local_device("cpu") == "cpu"


@pytest.mark.parametrize("number", [0, -1])
def test_an_invalid_number_of_processes(avsb, tiny: str, number: int) -> None:
    result = avsb("run", "--method", tiny, "--nproc", number)
    assert (result.code, result.out) == (2, "")
    assert result.err == f"error: --nproc must be 1 or more, got {number}.\n"


@pytest.mark.slow
@pytest.mark.parametrize("partial", ["keep", "wrap"])
def test_two_processes_train_like_one(planned, tmp_path: Path, partial: str) -> None:
    """With torchrun and uneven or empty micro-batches; the backbone is frozen, then unfrozen."""
    same = (*SPLITTABLE, f"partial_batches={partial}")
    one = planned(tmp_path / "one", *same)
    train(one)
    wanted = (*same, "accumulate=2")
    two = planned(tmp_path / "two", *wanted)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "avsbench_harness", "run", *arguments(two, *wanted)],
        env=environment(), capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("submission: ") == 1
    assert "note: Trained by 2 processes" in done.stdout
    assert len(losses(one)) == 20
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)


def test_a_step_on_padded_frames_only(planned, tmp_path: Path, monkeypatch) -> None:
    """Networks that skip such a batch included: the other processes wait for its gradients."""
    run = planned(tmp_path)
    system = build_system(run, pretrained=False).train()
    monkeypatch.setattr(system.model, "losses", lambda batch: {"bce": torch.zeros(())})
    torch.stack(list(system.losses(run_batch(run)).values())).sum().backward()
    assert all(not parameter.grad.any() for parameter in system.parameters())


VALIDATED = """
import torch
from avsbench_harness.cli import main
from avsbench_harness.engine import train
from avsbench_harness.distributed import gather, rank

real = train.validate

def validate(run, system, *rest):
    metrics = real(run, system, *rest)
    states = gather({name: value.clone() for name, value in system.state_dict().items()})
    if rank() == 0:
        one, two = states
        assert any("running_mean" in name for name in one)
        assert all(torch.equal(one[name], two[name]) for name in one), "weights differ"
    return metrics

train.validate = validate
main()
"""


@pytest.mark.slow
def test_all_processes_validate_the_same_network(planned, tmp_path: Path) -> None:
    """All processes use the batch statistics of rank 0, which checkpoints hold."""
    (tmp_path / "validated.py").write_text(VALIDATED)
    wanted = ("iterations=2", "batch_size=2")
    run = planned(tmp_path / "out", *wanted)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(tmp_path / "validated.py"), "train", *arguments(run, *wanted)],
        env=environment(), capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "val J" in done.stderr


@pytest.mark.slow
def test_submissions_and_scores_do_not_depend_on_the_number_of_processes(planned, tmp_path: Path) -> None:
    """One with the same weights; more processes than batches are idle in the last round."""
    wanted = ("iterations=3", "batch_size=2")
    one = planned(tmp_path / "1", *wanted)
    record = execute(one)
    for number in (2, 3):
        run = planned(tmp_path / str(number), *wanted)
        run.folder.mkdir(parents=True)
        for name in ("weights.safetensors", "training.json", "spec.json"):
            shutil.copy(one.folder / name, run.folder / name)
        done = command_line("run", "--nproc", number, "--json", *arguments(run, *wanted))
        assert done.returncode == 0, done.stdout + done.stderr
        assert sha256_file(run.submission_file("test")) == sha256_file(one.submission_file("test"))
        assert json.loads(done.stdout)["scores"] == [entry.model_dump(mode="json") for entry in record.scores]


@pytest.mark.slow
def test_a_killed_process_is_named_and_the_run_resumes(planned, tmp_path: Path) -> None:
    """From its last checkpoint, with two processes or with one."""
    whole = planned(tmp_path / "whole", *SPLITTABLE)
    train(whole)
    run = planned(tmp_path / "killed", *SPLITTABLE)
    code, errors = interrupted(run, lambda launcher: os.kill(second_process(launcher), signal.SIGKILL))
    assert code == 1
    assert "error: Process 1 of 2 was killed by SIGKILL; rerun the same command" in errors
    assert "Traceback" not in errors
    assert list((run.folder / "checkpoints").glob("step-*"))
    copy = planned(tmp_path / "copy", *SPLITTABLE)
    shutil.copytree(run.folder, copy.folder)
    done = command_line("train", "--nproc", "2", *arguments(run, *SPLITTABLE))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Resuming from step") == 1
    train(copy)
    for resumed in (run, copy):
        assert losses(resumed) == pytest.approx(losses(whole), rel=1e-5)


@pytest.mark.slow
def test_a_stopped_run_saves_its_state_and_reports_it_once(planned, tmp_path: Path) -> None:
    run = planned(tmp_path, *SPLITTABLE)
    code, errors = interrupted(run, lambda launcher: os.kill(launcher, signal.SIGTERM))
    assert code == 143
    assert errors.count("error: Stopped by SIGTERM. The state after step") == 1
    assert "Traceback" not in errors
    assert list((run.folder / "checkpoints").glob("step-*"))


def interrupted(run: Run, end: Callable[[int], None], seconds: float = 120) -> tuple[int, str]:
    """Two processes on a run, ended after their first checkpoint; exit code and stderr of the launcher."""
    process = subprocess.Popen(
        [sys.executable, "-m", "avsbench_harness", "run", "--nproc", "2", *arguments(run, *SPLITTABLE)],
        env=environment(AVSB_TEST_STEP_SECONDS="0.3", AVSB_CHECKPOINT_SECONDS="0"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + seconds
        while not list((run.folder / "checkpoints").glob("step-*")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.1)
        end(process.pid)
        _, errors = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, errors


def second_process(launcher: int) -> int:
    """The id of rank 1."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            parent = next(line for line in status.read_text().splitlines() if line.startswith("PPid:"))
            if (
                int(parent.split()[1]) == launcher
                and b"\0RANK=1\0" in status.with_name("environ").read_bytes()
            ):
                return int(status.parent.name)
        except (OSError, StopIteration):  # it has just ended
            continue
    raise AssertionError("no second process")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--set", "batch_size=1"], "2 processes need at least as many clips in a batch, and there are 1"),
        (["--device", "cuda:9"], "There is no device cuda:9 here"),
    ],
)
def test_invalid_requests_are_reported_once(planned, tmp_path: Path, change: list[str], message: str) -> None:
    run = planned(tmp_path)
    done = command_line("run", "--nproc", "2", *arguments(run), *change)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("error: ") == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.npz"))
    assert not list(tmp_path.rglob("spec.json"))
    assert not run.record_file.exists()  # fewer processes can still carry it out
    assert state_of(run) == "pending"


@pytest.mark.slow
def test_failures_after_the_run_are_reported_once(planned, tmp_path: Path) -> None:
    """Rank 0 writes the leaderboard; the other process waits silently."""
    run = planned(tmp_path, "iterations=1")
    execute(run)
    (tmp_path / "results" / "LEADERBOARD.md").mkdir()
    done = command_line("run", "--nproc", "2", *arguments(run, "iterations=1"))
    assert done.returncode == 1
    assert done.stderr.count("error: ") == 1
    assert "LEADERBOARD.md" in done.stderr
    assert "Traceback" not in done.stderr


CODEBOOKS = """
import json
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import avsbench_harness as avsb
from avsbench_harness.data.random_batch import random_batch
from avsbench_harness.distributed import gather, rank, process_group
from avsbench_harness.engine.step import padded_batch
from avsbench_harness.engine.system import System
from avsbench_harness.tasks import get_task

options = json.loads(sys.argv[1])

def trained(model, clips, frames):
    torch.manual_seed(0)
    quantizer = type(model.quantizer)(model.options)
    for step in range(6):
        torch.manual_seed(step)
        quantizer.update(clips[step], frames[step])
    return quantizer.state_dict()

with process_group():
    small = dict(dim=32, heads=4, ffn_dim=32, encoder_layers=1, semantic_layers=1, decoder_layers=1)
    model = avsb.build("qdformer", task="s4", backbone="resnet10t", codebook_size=16, tokens=3,
                       revive_dead_codes=True, dead_after=2, **options, **small).train()
    system = DistributedDataParallel(System(model, None), find_unused_parameters=True)
    before = model.quantizer.codebook.detach().clone()
    batch = random_batch(get_task("s4"), frames=2, side=64)
    torch.manual_seed(rank())
    for step in range(4):
        shown = padded_batch(batch) if rank() == step % 2 else batch
        torch.stack(list(system(shown).values())).sum().backward()
    states = gather({name: value.clone() for name, value in model.quantizer.state_dict().items()})
    if rank() == 0:
        one, two = states
        assert one["started"] and not torch.equal(one["codebook"], before)
        assert all(torch.equal(one[name], two[name]) for name in one)
    torch.manual_seed(0)
    clips, frames = torch.randn(6, 5, 3, 32), torch.randn(6, 9, 3, 32)
    part, other = (slice(0, 2), slice(0, 7)) if rank() == 0 else (slice(2, 5), slice(7, 9))
    split = trained(model, clips[:, part], frames[:, other])
if rank() == 0:  # without the other process
    whole = trained(model, clips, frames)
    assert whole["started"] and all(torch.equal(split[name], value) for name, value in whole.items())
    print("alike")
"""

CODEBOOK_OPTIONS = {
    "loss": {"codebook_update": "loss", "codebook_init": "all_tokens", "unquantized_steps": 0},
    "averages": {
        "codebook_update": "ema", "codebook_init": "kmeans", "unquantized_steps": 2,
        "calibration": "local_updates",
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CODEBOOK_OPTIONS)
def test_a_codebook_is_the_same_in_all_processes(name: str, tmp_path: Path) -> None:
    """A network whose weights are updated from its input, where one process has no clip.

    The codebook of two processes with parts of the tokens is that of one process with all of them.
    """
    (tmp_path / "codebooks.py").write_text(CODEBOOKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(tmp_path / "codebooks.py"), json.dumps(CODEBOOK_OPTIONS[name])],
        env=environment(), capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.stdout == "alike\n", done.stderr
