"""Scores of files: equal to scores of arrays, in the order of the data set; the commands."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from avsbench_harness.cli import compare, score, submit
from avsbench_harness.errors import AvsbError, SubmissionError, UsageError
from avsbench_harness.scoring import (
    Scores,
    Unavailable,
    encode,
    score_object,
    score_protocols,
    score_semantic,
    score_submission,
)
from avsbench_harness.submission import (
    Header,
    SubmissionWriter,
    read_solution,
    read_submission,
    write_solution,
)

SIZE = (24, 32)
N = 9


def write_pair(folder: Path, task: str, size: tuple[int, int] = SIZE, noise: float = 0.4, **options):
    """Write a submission and a solution of nine clips in different orders; return paths, ids and arrays."""
    rng = np.random.default_rng(7)
    lengths = [5 if i % 2 else 10 for i in range(N)] if task == "avss" else [5] * N
    top = 71 if task == "avss" else 2
    truth = [np.kron(rng.integers(0, top, (t, 6, 8)), np.ones((1, 4, 4), int)) for t in lengths]
    if task == "avss":
        predicted = [np.where(rng.random(m.shape) < noise, 0, m).astype(np.uint8) for m in truth]
    else:
        shape = (N, 5, *size)
        scale = size[0] // SIZE[0]
        large = np.kron(np.stack(truth), np.ones((1, 1, scale, scale)))
        predicted = list(encode(np.clip(large + noise * rng.normal(size=shape), 0, 1)))
    ids = [f"-clip_{i}" for i in rng.permutation(N)]
    solution, submission = folder / "solution.npz", folder / "submission.npz"
    fingerprint = write_solution(
        solution, task, "test", zip(ids, truth, ["v2"] * N, strict=True), dataset="Test set", **options
    )
    with SubmissionWriter(submission, Header(task, "test", fingerprint, "some method", size=size)) as writer:
        for i in rng.permutation(N):
            writer.add(ids[i], predicted[i])
    return submission, solution, ids, predicted, truth


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_scores_of_object_files_equal_those_of_arrays(tmp_path, workers):
    submission, solution, ids, predicted, truth = write_pair(tmp_path, "s4")
    with read_solution(solution) as theirs, read_submission(submission) as ours:
        for protocol in ("object/1", "avsbench", "davis", "confusion"):
            got = score_submission(ours, theirs, protocol, workers=workers)
            want = score_object(np.stack(predicted), np.stack(truth), protocol, clips=ids)
            assert got.metrics == want.metrics
            assert got.per_clip.equals(want.per_clip)
            assert (got.solution, got.dataset, got.synthetic) == (theirs.fingerprint, "Test set", False)
        # Batches follow the order of the data set, not of the submission.
        got = score_submission(ours, theirs, "avsbench", batch=4, workers=workers).metrics
        assert got == score_object(np.stack(predicted), np.stack(truth), "avsbench", batch=4).metrics


def test_scores_of_semantic_files_equal_those_of_arrays(tmp_path):
    submission, solution, _, predicted, truth = write_pair(tmp_path, "avss")
    valid = np.arange(10) < np.array([[len(m)] for m in truth])
    arrays = np.zeros((2, N, 10, *SIZE), np.uint8)
    for i in range(N):
        arrays[0, i][valid[i]], arrays[1, i][valid[i]] = predicted[i], truth[i]
    with read_solution(solution) as theirs, read_submission(submission) as ours:
        assert score_submission(ours, theirs).protocol == "semantic/1"
        for protocol in ("semantic/1", "avss-avsbench", "avss-combo", "confusion"):
            got = score_submission(ours, theirs, protocol)
            assert got.metrics == score_semantic(*arrays, valid, protocol=protocol).metrics


def test_every_protocol_in_one_pass(tmp_path):
    submission, solution, *_ = write_pair(tmp_path, "s4")
    with read_solution(solution) as theirs, read_submission(submission) as ours:
        results = score_protocols(ours, theirs)
        names = [result.protocol for result in results]
        assert names.count("avsbench") == 2
        for result in results:
            if isinstance(result, Unavailable):
                assert result.protocol == "combo"
                assert "two class scores" in result.reason
            else:
                alone = score_submission(ours, theirs, result.protocol, batch=result.batch)
                assert alone.metrics == result.metrics
        with pytest.raises(SubmissionError, match="two class scores"):
            score_submission(ours, theirs, "combo")


def test_only_avsegformer_accepts_predictions_of_another_size(tmp_path):
    submission, solution, *_ = write_pair(tmp_path, "s4", size=(48, 64))
    with read_solution(solution) as theirs, read_submission(submission) as ours:
        able = [r.protocol for r in score_protocols(ours, theirs) if isinstance(r, Scores)]
        assert able == ["avsegformer"]
        with pytest.raises(SubmissionError, match="24 x 32, not 48 x 64"):
            score_submission(ours, theirs)


def test_public_and_private_clips_partition_the_split(tmp_path):
    submission, solution, ids, *_ = write_pair(tmp_path, "s4", private=0.5, seed=3)
    with read_solution(solution) as theirs, read_submission(submission) as ours:
        public, private = (score_submission(ours, theirs, part=part) for part in ("public", "private"))
        assert sorted(public.clips + private.clips) == sorted(ids)
        assert (public.n, private.n, public.part) == (5, 4, "public")
        whole = score_submission(ours, theirs)
        assert whole.metrics["J"] == pytest.approx((5 * public.metrics["J"] + 4 * private.metrics["J"]) / 9)
        with pytest.raises(UsageError, match="Unknown part"):
            score_submission(ours, theirs, part="pubic")


def test_no_private_clips(tmp_path):
    submission, solution, *_ = write_pair(tmp_path, "s4")
    with (
        read_solution(solution) as theirs,
        read_submission(submission) as ours,
        pytest.raises(UsageError, match="has no private clips"),
    ):
        score_submission(ours, theirs, part="private")


def test_some_clips_are_scored_alone(tmp_path):
    submission, solution, ids, predicted, truth = write_pair(tmp_path, "s4")
    partial = tmp_path / "partial.npz"
    with read_submission(submission) as ours, SubmissionWriter(partial, ours.header) as writer:
        for index in (6, 1, 3):
            writer.add(ids[index], predicted[index])
    chosen = [ids[6], ids[1]]
    with read_solution(solution) as theirs, read_submission(partial) as ours:
        found = score_submission(ours, theirs, clips=chosen)
        assert found.clips == (ids[1], ids[6])  # the order of the solution
        arrays = score_object(np.stack([predicted[1], predicted[6]]), np.stack([truth[1], truth[6]]))
        assert found.metrics == arrays.metrics
        with pytest.raises(SubmissionError, match=f"clip '{ids[2]}' is missing"):
            score_submission(ours, theirs, clips=[*chosen, ids[2]])
        with pytest.raises(SubmissionError, match="is missing"):
            score_submission(ours, theirs)
        with pytest.raises(UsageError, match="none of the clips to score is in"):
            score_submission(ours, theirs, clips=["another"])


def test_a_submission_for_other_masks_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    submission, *_ = write_pair(tmp_path / "a", "s4")
    _, solution, *_ = write_pair(tmp_path / "b", "avss")
    with (
        read_solution(solution) as theirs,
        read_submission(submission) as ours,
        pytest.raises(SubmissionError, match="it is for s4 test, the solution for avss test"),
    ):
        score_submission(ours, theirs)


def test_scores_on_synthetic_data_are_marked(tmp_path):
    submission, solution, *_ = write_pair(tmp_path, "s4", synthetic=True)
    with read_solution(solution) as theirs, read_submission(submission) as ours:
        assert score_submission(ours, theirs).to_json()["synthetic"] is True


def test_memory_is_independent_of_the_number_of_clips(tmp_path):
    def clips(n):
        masks = np.random.default_rng(0).integers(0, 2, (5, 128, 128)).astype(np.uint8)
        return ((f"clip{i}", masks, "s4") for i in range(n))

    peaks = []
    for n in (100, 300):
        solution, submission = tmp_path / f"{n}-solution.npz", tmp_path / f"{n}.npz"
        fingerprint = write_solution(solution, "s4", "test", clips(n))
        with SubmissionWriter(submission, Header("s4", "test", fingerprint, "m", size=(128, 128))) as writer:
            for clip, masks, _ in clips(n):
                writer.add(clip, masks * 255)
        with read_solution(solution) as theirs, read_submission(submission) as ours:
            score_submission(ours, theirs)  # numba compiles
            tracemalloc.start()
            assert score_submission(ours, theirs).metrics["J"] == 1
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    # Per clip, the sums have 2 kB (copied once), the pixels 160 kB and the counts 10 kB.
    assert peaks[1] - peaks[0] < 200 * 10_000


# The command line in a new process, which prints its peak memory in kB at the end.
MEASURED = """
import atexit, pathlib, re, sys
from avsbench_harness.cli import main
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: sys.stderr.write(re.search("VmHWM:.* ([0-9]+) kB", status.read_text())[1]))
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("task", ["s4", "avss"])
def test_peak_memory_of_the_command(tmp_path, task):
    """5,000 clips under all protocols need at most 400 MB, and little more than 500 clips."""
    frames = 10 if task == "avss" else 5
    inside = np.zeros((frames, 32, 32), np.uint8)
    inside[:, 4:20, 6:30] = 1
    peaks = []
    for clips in (500, 5000):
        solution, submission = tmp_path / f"{clips}-solution.npz", tmp_path / f"{clips}.npz"
        listed = (
            (f"clip{i}", np.roll(inside, i, axis=2) * (i % 70 + 1 if frames > 5 else 1), task)
            for i in range(clips)
        )
        fingerprint = write_solution(solution, task, "test", listed)
        with SubmissionWriter(submission, Header(task, "test", fingerprint, "m", size=(32, 32))) as writer:
            for i in range(clips):
                writer.add(f"clip{i}", inside * (i % 70 + 1 if frames > 5 else 255))
        arguments = ["score", str(submission), "--solution", str(solution), "--protocol", "all", "--json"]
        command = [sys.executable, "-c", MEASURED, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(int(done.stderr.split()[-1]) / 1000)
    print(f"{task}: {peaks[0]:.0f} MB for 500 clips, {peaks[1]:.0f} MB for 5,000")
    assert peaks[1] < 400
    assert peaks[1] - peaks[0] < 100


app = typer.Typer()
app.command()(score.score)
app.command()(compare.compare)
app.add_typer(submit.app, name="submit")


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_command_score(tmp_path):
    submission, solution, *_ = write_pair(tmp_path, "s4", synthetic=True)
    given = [submission, "--solution", solution]
    value = json.loads(run("score", *given, "--json"))
    assert value["protocol"] == "object/1"
    assert value["intervals"]["J"][0] < value["metrics"]["J"] < value["intervals"]["J"][1]
    text = run("score", *given)
    assert "SYNTHETIC" in text
    assert f"{value['metrics']['J']:.4f}" in text
    every = json.loads(run("score", *given, "--protocol", "all", "--json"))
    assert any("unavailable" in entry for entry in every)
    assert "avsbench (batch 4)" in run("score", *given, "--protocol", "all")
    run("score", *given, "--per-clip", tmp_path / "clips.csv")
    assert (tmp_path / "clips.csv").read_text().startswith("clip,frames,J,F")


def test_command_score_refuses(tmp_path):
    submission, solution, *_ = write_pair(tmp_path, "s4")
    for extra, kind, message in (
        (["--protocol", "objct/1"], UsageError, "Did you mean 'object/1'"),
        (["--protocol", "all", "--batch", "4"], UsageError, "need a single protocol"),
        (["--part", "private"], UsageError, "no private clips"),
        (["--protocol", "combo"], SubmissionError, "two class scores"),
    ):
        with pytest.raises(kind, match=message) as caught:
            run("score", submission, "--solution", solution, *extra)
        assert isinstance(caught.value, AvsbError)


def test_command_compare(tmp_path):
    for name, noise in (("a", 0.3), ("b", 0.6)):
        (tmp_path / name).mkdir()
        write_pair(tmp_path / name, "s4", noise=noise)
    files = [tmp_path / "a" / "submission.npz", tmp_path / "b" / "submission.npz"]
    given = [*files, "--solution", tmp_path / "a" / "solution.npz"]
    value = json.loads(run("compare", *given, "--json", "--clips", 3))
    assert value["differences"][0]["interval"][0] > 0
    assert len(value["clips"]) == 3
    assert value["clips"][0]["clip"] in run("compare", *given)


def test_command_submit_check(tmp_path):
    submission, solution, *_ = write_pair(tmp_path, "avss")
    assert "no faults" in run("submit", "check", submission, "--solution", solution)
    assert json.loads(run("submit", "check", submission, "--solution", solution, "--json")) == {
        "submission": str(submission), "solution": str(solution), "valid": True, "faults": [],
    }  # fmt: skip
    submission.write_bytes(submission.read_bytes()[:-30])
    result = CliRunner().invoke(app, ["submit", "check", str(submission)])
    assert result.exit_code == 3
    assert "not a complete zip" in result.output


@pytest.mark.parametrize("scale", [1, 2])
def test_the_validator_accepts_what_the_grader_accepts(tmp_path, scale):
    size = (SIZE[0] * scale, SIZE[1] * scale)
    submission, solution, *_ = write_pair(tmp_path, "s4", size)
    for protocol in (None, "avsbench", "avsegformer", "combo"):
        option = ["--protocol", protocol] if protocol else []
        paths = [str(submission), "--solution", str(solution), *option]
        checked = CliRunner().invoke(app, ["submit", "check", *paths])
        scored = CliRunner().invoke(app, ["score", *paths])
        accepted = protocol != "combo" and (scale == 1 or protocol == "avsegformer")
        assert checked.exit_code == (0 if accepted else 3), checked.output
        assert isinstance(scored.exception, SubmissionError) is not accepted
        if not accepted:
            assert str(scored.exception) in checked.output.replace("\n", "")


@pytest.mark.parametrize("side", [224, 448])
def test_the_size_is_checked_without_a_solution(tmp_path, side):
    submission = tmp_path / "submission.npz"
    with SubmissionWriter(
        submission, Header("s4", "test", "0" * 64, "a method", size=(side, side))
    ) as writer:
        writer.add("clip", np.full((5, side, side), 200, np.uint8))
    paths = ["submit", "check", str(submission)]
    for protocol in ([], ["--protocol", "avsbench"]):
        result = CliRunner().invoke(app, [*paths, *protocol])
        assert result.exit_code == (0 if side == 224 else 3)
        assert ("no faults in format, values and size; pass --solution" in result.output) == (side == 224)
        assert ("size 224 x 224, not 448 x 448" in result.output) == (side == 448)
    assert CliRunner().invoke(app, [*paths, "--protocol", "avsegformer"]).exit_code == 0
    with pytest.raises(UsageError, match="Unknown protocol for s4 'semantic/1'"):
        run(*paths, "--protocol", "semantic/1")


@pytest.mark.parametrize(
    "module", ["scoring", "launch.records", "launch.run_scores", "launch.resolve_solution"]
)
def test_scoring_does_not_import_torch(module):
    program = f"import sys, avsbench_harness.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
