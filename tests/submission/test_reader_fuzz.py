"""Random submissions and solutions are read or refused with one sentence, in bounded time and memory."""

from __future__ import annotations

import random
import resource
import time

import numpy as np
import pytest

from avsbench_harness.errors import AvsbError
from avsbench_harness.scoring import find_faults, score_submission
from avsbench_harness.submission import read_solution, read_submission

FILES = 2000


def peak() -> int:
    """Largest memory of this process, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture
def rng() -> random.Random:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    return random.Random(seed)


def stored(path, folder):
    """The content of an npz file without compression, so that changes reach the arrays."""
    with np.load(path) as arrays:
        np.savez(folder / "stored.npz", **arrays)
    return (folder / "stored.npz").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["s4", "avss"])
@pytest.mark.parametrize("kind", ["submission", "solution"])
def test_random_files(pair, tmp_path, mutate, rng, task, kind):
    """The grader scores exactly the files in which the validator finds no fault."""
    submission, solution = pair(task)
    original = submission if kind == "submission" else solution
    originals = [original.read_bytes(), stored(original, tmp_path)]
    path = tmp_path / "mutated.npz"
    before, slowest, scored = peak(), 0.0, 0
    codes: set[int] = set()
    for _ in range(FILES):
        path.write_bytes(mutate(rng.choice(originals), rng))
        start = time.process_time()
        refusals = []
        for check in (True, False):
            try:
                with read_solution(path if kind == "solution" else solution) as truth:
                    ours = path if kind == "submission" else submission
                    if check:
                        refusals.append("; ".join(find_faults(ours, truth)))
                        truth_faults = truth.content_faults()
                    else:
                        with read_submission(ours) as predicted:
                            score_submission(predicted, truth, workers=1)
                        refusals.append("")
            except AvsbError as error:
                refusals.append(str(error))
                codes.add(error.exit_code)
        assert all("\n" not in refusal and len(refusal) < 2000 for refusal in refusals)
        assert (not refusals[0] and not truth_faults) == (not refusals[1])
        scored += not refusals[1]
        slowest = max(slowest, time.process_time() - start)
    grown = (peak() - before) / 1e6
    print(f"{kind}, {task}: {scored} of {FILES} scored, slowest {slowest:.2f} s, {grown:.0f} MB")
    assert codes <= {2, 3}
    assert 0 < scored < FILES
    assert slowest < 2
    assert grown < 150
