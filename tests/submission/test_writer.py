"""Writing of submissions: atomic, in bounded memory, and with the checks of the reader."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc

import numpy as np
import pytest

from avsbench_harness.errors import SubmissionError
from avsbench_harness.submission import Header, SubmissionWriter, decode, encode, read_submission

FINGERPRINT = "0" * 64


def header(task="s4", size=(4, 4), **other):
    return Header(task, "test", FINGERPRINT, "test", size=size, **other)


def test_round_trip(tmp_path):
    p = np.random.default_rng(0).random((3, 5, 4, 4)).astype(np.float32)
    given = header(run="run-1", note='brackets [bold] "quotes" and ü')
    with SubmissionWriter(tmp_path / "a.npz", given) as writer:
        writer.add("-one", p[0])
        writer.add("two", encode(p[1]))
        writer.add("three", p[2].astype(np.float64))
    with read_submission(tmp_path / "a.npz") as submission:
        assert submission.header == given
        assert list(submission.shapes) == ["-one", "two", "three"]
        assert np.array_equal([array for _, array in submission], encode(p))


def test_probabilities_below_the_second_threshold_are_no_binary_mask(tmp_path):
    p = np.zeros((5, 4, 4), np.float32)
    p[0, 0, 0] = 0.005  # code 1
    with SubmissionWriter(tmp_path / "a.npz", header()) as writer:
        writer.add("low", p)
        writer.add("high", p + np.float32(0.5))
    with read_submission(tmp_path / "a.npz") as submission:
        assert submission.header == header(low_probability=("low",))
        assert np.array_equal(submission.read("low"), encode(p))
        with SubmissionWriter(tmp_path / "copy.npz", submission.header) as writer:
            for clip, codes in submission:
                writer.add(clip, codes)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "copy.npz").read_bytes()


def test_numpy_can_read_a_submission(tmp_path):
    codes = np.arange(80, dtype=np.uint8).reshape(5, 4, 4)
    with SubmissionWriter(tmp_path / "a.npz", header()) as writer:
        writer.add("clip", codes)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert sorted(arrays) == ["clip", "header"]
        assert np.array_equal(decode(arrays["clip"]), decode(codes))


def test_equal_content_gives_equal_bytes(tmp_path):
    for name in "ab":
        with SubmissionWriter(tmp_path / name, header()) as writer:
            writer.add("clip", np.full((5, 4, 4), 0.3, np.float32))
        time.sleep(0.05)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("task", "array", "message"),
    [
        ("s4", np.full((5, 4, 4), np.nan, np.float32), "clip 'bad': 80 of 80 probabilities are NaN"),
        ("s4", np.full((5, 4, 4), 3.0, np.float32), "clip 'bad': probabilities must lie in"),
        ("s4", np.zeros((5, 4, 4), np.int64), "clip 'bad': expected floating-point"),
        ("s4", np.eye(4, dtype=np.uint8)[None], "clip 'bad': the codes are 0 and 1 alone; multiply a binary"),
        (
            "s4",
            np.zeros((6, 4, 4), np.float32),
            r"clip 'bad': shape is \(6, 4, 4\), expected \(1 to 5, 4, 4\)",
        ),
        ("s4", np.zeros((5, 4, 5), np.float32), "clip 'bad': shape"),
        ("s4", np.zeros((4, 4), np.float32), "clip 'bad': shape"),
        ("avss", np.full((10, 4, 4), 71), "clip 'bad': labels must lie in 0 to 70, got 71 to 71"),
        ("avss", np.full((10, 4, 4), -1), "clip 'bad': labels"),
        ("avss", np.zeros((10, 4, 4), np.float32), "clip 'bad': expected integer labels"),
    ],
)
def test_a_bad_clip_is_named_and_nothing_is_written(tmp_path, task, array, message):
    good = np.zeros((5, 4, 4), np.uint8)
    with (  # noqa: PT012
        pytest.raises(SubmissionError, match=message),
        SubmissionWriter(tmp_path / "a.npz", header(task)) as writer,
    ):
        writer.add("good", good)
        writer.add("bad", array)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("clip", ["", "a/b", "../a", "header", ".hidden", "a ", "ü\u202e", "a\n", "x" * 129])
def test_invalid_ids_are_refused(tmp_path, clip):
    with (
        pytest.raises(SubmissionError, match="is not a valid clip id"),
        SubmissionWriter(tmp_path / "a.npz", header()) as writer,
    ):
        writer.add(clip, np.zeros((5, 4, 4), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_a_repeated_clip_is_refused(tmp_path):
    with (  # noqa: PT012
        pytest.raises(SubmissionError, match="'a' was added twice"),
        SubmissionWriter(tmp_path / "a.npz", header()) as writer,
    ):
        writer.add("a", np.zeros((5, 4, 4), np.uint8))
        writer.add("a", np.zeros((5, 4, 4), np.uint8))


def test_an_empty_submission_is_refused(tmp_path):
    with (
        pytest.raises(SubmissionError, match="no clips were added"),
        SubmissionWriter(tmp_path / "a.npz", header()),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [({"task": "s5"}, "Unknown task"), ({"solution": "abc"}, "64 hexadecimal"), ({"size": (0, 4)}, "size")],
)
def test_invalid_headers_are_refused(tmp_path, change, message):
    values = {"task": "s4", "split": "test", "solution": FINGERPRINT, "method": "m", **change}
    with pytest.raises(Exception, match=message):
        SubmissionWriter(tmp_path / "a.npz", Header(**values))


def test_an_interrupted_process_leaves_no_file(tmp_path):
    program = f"""
        import signal
        import numpy as np
        from pathlib import Path
        from avsbench_harness.submission import Header, SubmissionWriter
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        header = Header("s4", "test", "{FINGERPRINT}", "test", size=(64, 64))
        with SubmissionWriter(Path({str(tmp_path / "a.npz")!r}), header) as writer:
            for i in range(10**6):
                writer.add(f"clip{{i}}", np.zeros((5, 64, 64), np.uint8))
                if i == 20:
                    print("busy", flush=True)
    """
    for number in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout.readline() == "busy\n"
        process.send_signal(number)
        process.wait(timeout=30)
        process.stdout.close()
        assert not (tmp_path / "a.npz").exists()
        if number == signal.SIGINT:
            assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_number_of_clips(tmp_path):
    clip = np.random.default_rng(0).integers(0, 256, (5, 128, 128)).astype(np.uint8)
    peaks = []
    for clips in (10, 200):
        tracemalloc.start()
        with SubmissionWriter(tmp_path / "a.npz", header(size=(128, 128))) as writer:
            for i in range(clips):
                writer.add(f"clip{i}", clip)
        with read_submission(tmp_path / "a.npz") as submission:
            assert sum(1 for _ in submission) == clips
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 190 * 5_000  # the 190 additional clips have 80 kB each
