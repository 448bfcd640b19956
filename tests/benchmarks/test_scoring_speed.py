"""Speed of the scorer relative to the published evaluation loop, measured in the same run: ``nox -s bench``.

The loops below repeat the operations of the released evaluation functions. Rates are clips per second of
processor time on one thread, and the tests assert ratios of rates, which do not depend on the machine or its
load. The published AVSS loop starts from class scores and includes their softmax and argmax; the scorer
starts from the labels that a submission holds.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from avsbench_harness.scoring import encode, score_object, score_semantic
from avsbench_harness.submission import Header, SubmissionWriter, decode, write_solution
from avsbench_harness.submission.codes import THRESHOLDS

#: Required speed of the metrics, as a multiple of the published loop.
METRICS_RATIO = 500

#: Required speed of the encoder, as a multiple of ``numpy.searchsorted`` over the thresholds.
ENCODE_RATIO = 7

#: Required speed of the whole command, as a multiple of the published loop alone.
COMMAND_RATIO = {"s4": 11, "avss": 36}


def fields(clips: int, frames: int, seed: int) -> np.ndarray:
    """Smooth noise of unit variance, (clips, frames, 224, 224), whose contours are as long as real ones."""
    noise = np.random.default_rng(seed).standard_normal((clips, frames, 224, 224))
    smooth = ndimage.gaussian_filter(noise, (0, 0.5, 14, 14))
    return smooth / smooth.std()


@pytest.fixture(scope="module")
def object_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Noisy probabilities (20,5,224,224), and masks."""
    field = fields(20, 5, 0)
    grain = np.random.default_rng(1).standard_normal(field.shape)
    prob = 1 / (1 + np.exp(-6 * (field + 0.1 * grain - 1)))
    return prob.astype(np.float32), (field > 1).astype(np.uint8)


@pytest.fixture(scope="module")
def label_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true labels (20,10,224,224) of three classes each."""
    field = fields(20, 10, 2)
    truth = np.where(field > 1, 5, np.where(field < -1.2, 70, 0)).astype(np.uint8)
    return np.roll(truth, (3, 5), axis=(2, 3)), truth


def published_object(prob: torch.Tensor, masks: torch.Tensor) -> tuple[float, float]:
    """J and F of one batch (F,H,W) as the released functions compute them."""
    pixels = masks.shape[-1] * masks.shape[-2]
    empty = masks.sum(dim=(1, 2)) == 0
    binary = (prob > 0.5).float()
    inter = (binary * masks).sum(dim=(1, 2))
    union = torch.max(binary, masks).sum(dim=(1, 2))
    background = ((1 - binary) * (1 - masks)).sum(dim=(1, 2))
    inter[empty], union[empty] = background[empty], pixels
    j = (inter / (union + 1e-7)).mean()
    thresholds = torch.linspace(0, 1 - 1e-10, 255)
    total, count = torch.zeros(255), 0
    for p, g in zip(prob, masks, strict=True):
        if g.mean() == 0:
            continue
        precision, recall = torch.zeros(255), torch.zeros(255)
        for i in range(255):
            above = (p >= thresholds[i]).float()
            hits = (above * g).sum()
            precision[i], recall[i] = hits / (above.sum() + 1e-20), hits / (g.sum() + 1e-20)
        f = 1.3 * precision * recall / (0.3 * precision + recall)
        f[f != f] = 0
        total, count = total + f, count + 1
    return j.item(), (total / count).max().item() if count else 0.0


def published_semantic(
    scores: torch.Tensor, truth: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums of IoU and F and counts of one batch, (71,) each, from scores (F,71,H,W)."""
    labels = torch.argmax(torch.softmax(scores, dim=1), dim=1)
    iou, f, count = torch.zeros(71), torch.zeros(71), torch.zeros(71)
    for p, g in zip(labels + 1, truth + 1, strict=True):
        p = p * (g > 0)
        both = torch.histc((p * (p == g)).float(), bins=71, min=1, max=71)
        ours = torch.histc(p.float(), bins=71, min=1, max=71)
        theirs = torch.histc(g.float(), bins=71, min=1, max=71)
        union = ours + theirs - both
        precision, recall = both / ours, both / theirs
        value = 1.3 * precision * recall / (0.3 * precision + recall)
        iou += both / (union + 2.2e-16)
        f += torch.nan_to_num(value)
        count += union > 0
    return iou, f, count


def rate(work: Callable[[], object], clips: int, repeat: int) -> float:
    """Clips per second of processor time: the best of several repetitions after one warm-up."""
    work()
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return clips / best


def report(benchmark, name: str, ours: float, published: float) -> float:
    """Print and record two rates; return their ratio."""
    ratio = ours / published
    benchmark.extra_info.update(ours=ours, published=published, ratio=ratio)
    print(f"\n{name}: {ours:.0f} clips per CPU second, published loop {published:.2f}, ratio {ratio:.0f}")
    return ratio


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def published_rates(one_thread, object_arrays, label_arrays) -> dict[str, float]:
    """Rates of the published loops."""
    prob, masks = (torch.from_numpy(array[:3]).float() for array in object_arrays)
    scores, truth = first_class_scores(label_arrays)
    return {
        "s4": rate(lambda: [published_object(p, g) for p, g in zip(prob, masks, strict=True)], 3, 3),
        "avss": rate(lambda: published_semantic(scores, truth), 1, 3),
    }


def first_class_scores(label_arrays) -> tuple[torch.Tensor, torch.Tensor]:
    """Class scores (10,71,224,224) of the first clip, and its true labels (10,224,224)."""
    labels, truth = (torch.from_numpy(array[0]).long() for array in label_arrays)
    return torch.nn.functional.one_hot(labels, 71).permute(0, 3, 1, 2).float(), truth


def test_object(benchmark, object_arrays, published_rates):
    prob, masks = object_arrays
    codes = encode(prob)
    p, g = torch.from_numpy(prob), torch.from_numpy(masks).float()
    many, truth = np.tile(codes, (15, 1, 1, 1)), np.tile(masks, (15, 1, 1, 1))
    ours = rate(lambda: score_object(many, truth).metrics, len(many), 5)
    j, f = np.mean([published_object(p[i], g[i]) for i in range(5)], axis=0)
    assert score_object(codes[:5], masks[:5], "avsbench").metrics == pytest.approx({"J": j, "F": f}, abs=1e-6)
    ratio = report(benchmark, "object", ours, published_rates["s4"])
    benchmark(lambda: score_object(codes, masks).metrics)
    assert ratio >= METRICS_RATIO


def test_semantic(benchmark, label_arrays, published_rates):
    labels, truth = label_arrays
    many, true = np.tile(labels, (5, 1, 1, 1)), np.tile(truth, (5, 1, 1, 1))
    ours = rate(lambda: score_semantic(many, true).metrics, len(many), 5)
    published = published_semantic(*first_class_scores(label_arrays))
    sums = np.concatenate([part.numpy() for part in published])
    assert score_semantic(labels[:1], truth[:1], protocol="avss-combo").tally.sums[0] == pytest.approx(
        sums, rel=1e-6
    )
    ratio = report(benchmark, "semantic", ours, published_rates["avss"])
    benchmark(lambda: score_semantic(labels, truth).metrics)
    assert ratio >= METRICS_RATIO


def test_encode(benchmark, object_arrays):
    prob, _ = object_arrays
    # Noise is the worst case of branch prediction.
    noise = np.random.default_rng(0).random(prob.shape, dtype=np.float32)
    rates = [rate(lambda p=p: encode(p), len(p), 5) for p in (prob, noise)]
    search = rate(lambda: np.searchsorted(THRESHOLDS, noise[:2], side="right"), 2, 3)
    print(
        f"\nencode: {rates[0]:.0f} clips per CPU second, {rates[1]:.0f} of noise; searchsorted {search:.0f}"
    )
    assert np.array_equal(encode(decode(encode(prob))), encode(prob))
    benchmark(lambda: encode(prob))
    assert min(rates) >= ENCODE_RATIO * search


#: Run ``avsb`` and print its peak memory to stderr (ru_maxrss of a child starts at that of its parent).
PROGRAM = """
import atexit, pathlib, sys
from avsbench_harness.cli import main
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: sys.stderr.write(status.read_text() if status.exists() else ""))
main()
"""


def write_split(folder: Path, task: str, clips: int, bank: np.ndarray) -> tuple[Path, Path]:
    """Write a submission and a solution with as many clips as the official test split."""

    def field(i: int) -> np.ndarray:
        frames = 5 if task == "s4" or i % 3 == 0 else 10
        return np.roll(bank[i % len(bank)], (i * 7, i * 3), axis=(1, 2))[:frames]

    def masks(i: int) -> np.ndarray:
        if task == "s4":
            return (field(i) > 1).astype(np.uint8)
        return np.select([field(i) > 1, field(i) < -1.2], [i % 70 + 1, i * 7 % 70 + 1]).astype(np.uint8)

    solution, submission = folder / f"{task}-solution.npz", folder / f"{task}.npz"
    given = ((f"clip_{i}", masks(i), task) for i in range(clips))
    fingerprint = write_solution(solution, task, "test", given)
    grain = 0.1 * np.random.default_rng(0).standard_normal((5, 224, 224))
    with SubmissionWriter(submission, Header(task, "test", fingerprint, "benchmark")) as writer:
        for i in range(clips):
            if task == "s4":
                writer.add(f"clip_{i}", 1 / (1 + np.exp(-6 * (field(i) + grain - 1))))
            else:
                writer.add(f"clip_{i}", np.roll(masks(i), (3, 5), axis=(1, 2)))
    return submission, solution


@pytest.mark.parametrize(("task", "clips"), [("s4", 740), ("avss", 1554)])
def test_command(benchmark, tmp_path, published_rates, task, clips):
    """``avsb score`` of a whole test split: start of the process, reading, scoring, intervals."""
    submission, solution = write_split(tmp_path, task, clips, fields(12, 10, 3))
    command = [sys.executable, "-c", PROGRAM, "score", str(submission), "--solution", str(solution), "--json"]

    def run() -> tuple[float, float]:
        """Return elapsed seconds, and the peak memory of the process in MiB."""
        start = time.perf_counter()
        process = subprocess.run(command, check=True, capture_output=True, text=True)
        peak = re.search(r"VmHWM:\s+(\d+) kB", process.stderr)
        return time.perf_counter() - start, int(peak[1]) / 1024 if peak else 0.0

    run()  # warm-up: numba compiles once per installation
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    results = [run() for _ in range(3)]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / len(results)
    wall, peak = min(result[0] for result in results), max(result[1] for result in results)
    print(f"\n{task}: {wall:.2f} s elapsed, {cpu:.2f} s of processor time, {peak:.0f} MiB", end="")
    ratio = report(benchmark, f"avsb score, {task}", clips / cpu, published_rates[task])
    benchmark.pedantic(run, rounds=1)
    assert peak < 400
    assert ratio >= COMMAND_RATIO[task]
