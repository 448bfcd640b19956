"""The reader refuses every invalid file with a one-line message, in bounded time and memory."""

from __future__ import annotations

import io
import json
import pickle
import random
import resource
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.errors import MissingDataError, SubmissionError
from avsbench_harness.submission import (
    Header,
    SubmissionWriter,
    archive,
    check_submission,
    read_solution,
    read_submission,
    write_solution,
)


def refused(path: Path) -> str:
    """Read all of a file and return the one-line message of its refusal."""
    with pytest.raises(SubmissionError) as caught, read_submission(path) as submission:
        for _ in submission:
            pass
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert caught.value.exit_code == 3
    # The validator uses the reader and finds the same fault.
    assert message.removeprefix(f"{path}: ").startswith(check_submission(path)[0])
    return message


def repack(path: Path, change) -> Path:
    """Rewrite a zip; ``change`` maps [(name, bytes)] to [(name, bytes)]."""
    with zipfile.ZipFile(path) as old:
        entries = [(info.filename, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in change(entries):
            new.writestr(name, data)
    return path


def npy(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()


def test_files_written_by_numpy(savez, masks):
    for task in ("s4", "avss"):
        top = 1 if task == "avss" else 255
        with read_submission(savez(task)) as submission:
            assert {k: v.tolist() for k, v in submission} == {
                k: (v * top).tolist() for k, v in masks(task).items()
            }


@pytest.mark.parametrize("name", ["two words", "日本 1", "Ünï=<b>"])
def test_clip_ids_with_spaces_and_other_scripts(savez, tmp_path, masks, name):
    """Files of numpy and of the writer hold every id that a table may have."""
    mask = masks("s4")["b.2"]
    fingerprint = write_solution(tmp_path / "solution.npz", "s4", "test", [(name, mask, "s4")])
    codes = {"-a_1": None, "b.2": None, "_c": None, name: mask * np.uint8(255)}
    ours = tmp_path / "ours.npz"
    with SubmissionWriter(ours, Header("s4", "test", fingerprint, "test", size=(6, 8))) as writer:
        writer.add(name, codes[name])
    with read_solution(tmp_path / "solution.npz") as solution:
        for path in (ours, savez(header={"solution": fingerprint}, clips=codes)):
            assert check_submission(path, solution) == []
            with read_submission(path) as submission:
                assert np.array_equal(submission.read(name), codes[name])


def test_stored_members(savez, tmp_path, masks):
    with np.load(savez()) as arrays:
        np.savez(tmp_path / "stored.npz", **arrays)
    assert check_submission(tmp_path / "stored.npz") == []


def test_missing_file(tmp_path):
    with pytest.raises(MissingDataError, match="Cannot read"):
        read_submission(tmp_path / "none.npz")
    with pytest.raises(MissingDataError):
        check_submission(tmp_path)  # a folder


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ({"b.2": np.zeros((5, 6, 8), np.float32)}, "clip 'b.2': dtype is '<f4', expected uint8; encode"),
        ({"b.2": np.full((5, 6, 8), np.nan)}, "clip 'b.2': dtype is '<f8'"),
        ({"b.2": np.zeros((5, 6, 8), bool)}, "clip 'b.2': dtype is '|b1'"),
        ({"b.2": np.zeros((6, 6, 8), np.uint8)}, "clip 'b.2': shape is (6, 6, 8), expected (1 to 5, 6, 8)"),
        ({"b.2": np.zeros((0, 6, 8), np.uint8)}, "clip 'b.2': shape"),
        ({"b.2": np.zeros((5, 8, 6), np.uint8)}, "clip 'b.2': shape"),
        ({"b.2": np.zeros((5, 48), np.uint8)}, "clip 'b.2': shape"),
        ({"b.2": np.asfortranarray(np.zeros((5, 6, 8), np.uint8))}, "clip 'b.2': it is in Fortran order"),
        ({"b.2": np.zeros(3, [("x", "u1")])}, "clip 'b.2': dtype is 'structured'"),
        ({"../evil": np.zeros((5, 6, 8), np.uint8)}, "member '../evil.npy' is not a clip"),
        ({" a": np.zeros((5, 6, 8), np.uint8)}, "is not a clip"),
        ({"a\u202eb": np.zeros((5, 6, 8), np.uint8)}, "is not a clip"),
        ({"a\\b": np.zeros((5, 6, 8), np.uint8)}, "is not a clip"),
        ({"-a_1": None, "b.2": None, "_c": None}, "it has no clips"),
    ],
)
def test_invalid_clips(savez, clips, message):
    assert message in refused(savez(clips=clips))


def test_labels_over_70(savez, masks):
    labels = masks("avss")["b.2"].copy()
    labels[3, 2, 1] = 71
    assert "clip 'b.2': label 71 exceeds 70" in refused(savez("avss", clips={"b.2": labels}))


def test_binary_masks_instead_of_codes(savez, masks):
    binary = masks("s4")
    message = refused(savez(clips={"b.2": binary["b.2"]}))
    assert "clip 'b.2': its codes are 0 and 1 alone, which score as empty; multiply a binary mask" in message
    assert len(check_submission(savez(clips=binary))) == 3
    assert check_submission(savez(clips={"b.2": binary["b.2"] * 0})) == []  # no object
    assert check_submission(savez(header={"low_probability": ["b.2"]}, clips={"b.2": binary["b.2"]})) == []
    for ids in ("b.2", [1], {"b.2": 1}):
        assert "header: " in refused(savez(header={"low_probability": ids}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format is 2; this version reads 1"),
        ({"format": True}, "format is True"),
        ({"kind": "solution"}, "expected a submission"),
        ({"task": "s5"}, "Unknown task 's5'"),
        ({"task": ["s4"]}, "task must be a string"),
        ({"split": "tset"}, "Did you mean 'test'?"),
        ({"encoding": "labels"}, "a submission for s4 has 'threshold-codes'"),
        ({"solution": "A" * 64}, "64 hexadecimal"),
        ({"size": [224]}, "size must be"),
        ({"size": [True, 8]}, "size must be"),
        ({"size": [6, 10**9]}, "size must be"),
        ({"method": None}, "method must be a string"),
        ({"metod": "x"}, "unknown key 'metod'. Did you mean 'method'?"),
    ],
)
def test_invalid_headers(savez, change, message):
    assert message in refused(savez(header=change))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.frombuffer(b"[" * 100_000, np.uint8), "not UTF-8 JSON"),
        (np.frombuffer(b"\xff\xfe", np.uint8), "not UTF-8 JSON"),
        (np.frombuffer(b"[1]", np.uint8), "must be a JSON object"),
        (np.array("{}"), "expected UTF-8 bytes as a uint8 vector"),
        (np.zeros((2, 2), np.uint8), "expected UTF-8 bytes"),
        (np.zeros(5_000_000, np.uint8), "exceed the limit"),
    ],
)
def test_header_members_of_other_content(savez, data, message):
    def change(entries):
        return [(name, npy(data) if name == "header.npy" else content) for name, content in entries]

    assert message in refused(repack(savez(), change))


def test_missing_header(savez):
    assert "it has no header" in refused(repack(savez(), lambda e: [x for x in e if x[0] != "header.npy"]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_repeated_clip(savez):
    assert "clip 'b.2' occurs twice" in refused(
        repack(savez(), lambda e: [*e, ("b.2.npy", dict(e)["b.2.npy"])])
    )


def test_members_that_are_not_arrays(savez):
    assert "member 'README' is not a clip" in refused(repack(savez(), lambda e: [*e, ("README", b"hi")]))
    assert "clip 'x': it is not a .npy array" in refused(
        repack(savez(), lambda e: [*e, ("x.npy", b"hi" * 99)])
    )


class Explosive:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def test_nothing_is_unpickled(savez):
    objects = np.array([Explosive()], dtype=object)
    path = savez(clips={"b.2": objects})
    assert "clip 'b.2': dtype is '|O'" in refused(path)
    pickled = pickle.dumps(Explosive())
    assert "clip 'x': it is not a .npy" in refused(repack(savez(), lambda e: [*e, ("x.npy", pickled)]))


def npy_with_header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(240)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{'descr': '|u1', 'fortran_order': False}",
        "{'descr': '|u1', 'fortran_order': 0, 'shape': (5, 6, 8)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': [5, 6, 8]}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (5, 6, -8)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (5, 6, 8), 'x': 1}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (5, 6, __import__('os'))}",
        "(" * 900,
        "-" * 1000,
        "9" * 1000,
    ],
)
def test_malformed_array_headers(savez, text):
    def change(entries):
        return [(n, npy_with_header(text) if n == "b.2.npy" else d) for n, d in entries]

    assert "clip 'b.2': its .npy header is malformed" in refused(repack(savez(), change))


def test_size_different_from_the_shape(savez):
    def change(entries):
        return [(n, d + b"more" if n == "b.2.npy" else d) for n, d in entries]

    assert "clip 'b.2': it declares" in refused(repack(savez(), change))


def patch_directory(path: Path, name: str, at: int, value: int) -> Path:
    """Overwrite a 32-bit field of a member's central directory entry."""
    data = bytearray(path.read_bytes())
    entry = data.rindex(name.encode()) - 46
    assert data[entry : entry + 4] == b"PK\x01\x02"
    struct.pack_into("<L", data, entry + at, value)
    path.write_bytes(data)
    return path


def test_zip_bomb_with_its_size_declared(savez):
    path = repack(
        savez(), lambda e: [(n, d if n != "b.2.npy" else npy(np.zeros(300_000_000, np.uint8))) for n, d in e]
    )
    tracemalloc.start()
    assert "clip 'b.2': shape is (300000000,)" in refused(path)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_zip_bomb_with_a_wrong_size_declared(savez):
    """100 MB of compressed zeros after a valid array; the declared size is that of the array."""
    good = npy(np.zeros((5, 6, 8), np.uint8))
    path = repack(savez(), lambda e: [(n, d if n != "b.2.npy" else good + bytes(100_000_000)) for n, d in e])
    patch_directory(path, "b.2.npy", 24, len(good))
    tracemalloc.start()
    start = time.process_time()
    assert f"clip 'b.2': it does not decompress to the declared {len(good)} bytes" in refused(path)
    assert time.process_time() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_a_clip_shorter_than_declared(savez):
    good = npy(np.zeros((5, 6, 8), np.uint8))
    path = repack(savez(), lambda e: [(n, d if n != "b.2.npy" else good[:-1]) for n, d in e])
    assert "clip 'b.2': it does not decompress to the declared" in refused(
        patch_directory(path, "b.2.npy", 24, len(good))
    )


def test_a_wrong_checksum(savez):
    assert "clip 'b.2': its checksum is wrong" in refused(patch_directory(savez(), "b.2.npy", 16, 1))


def test_a_truncated_zip(savez):
    path = savez()
    data = path.read_bytes()
    for length in (0, 3, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert "write or copy" in refused(path)


def test_too_many_members(savez, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    assert "the zip lists 4 members" in refused(savez())


def test_encryption_and_unknown_compression(savez):
    path = savez()
    data = path.read_bytes()
    entry = data.rindex(b"b.2.npy") - 46
    for at, value, message in ((8, 1, "is encrypted"), (10, 14, "compression method 14")):
        changed = bytearray(data)
        struct.pack_into("<H", changed, entry + at, value)
        path.write_bytes(changed)
        assert message in refused(path)


def test_all_faults_are_listed(savez, masks, pair):
    _, solution = pair("avss")
    labels = masks("avss")["_c"].copy()
    labels[0, 0, 0] = 99
    path = savez(
        "avss",
        clips={
            "_c": labels,
            "b.2": masks("avss")["b.2"][:5],
            "-a_1": None,
            "new": np.zeros((5, 6, 8), np.float32),
            "other": np.zeros((5, 6, 8), np.uint8),
        },
    )
    with read_solution(solution) as truth:
        faults = check_submission(path, truth)
    text = "\n".join(faults)
    for part in (
        "clip 'new': dtype",
        "clip '_c': label 99",
        "clip '-a_1' is missing",
        "clip 'other' is not in the solution",
        "clip 'b.2' has 5 frames, the solution 10",
    ):
        assert part in text
    assert len(faults) == 5
    assert all("\n" not in fault for fault in faults)


def test_message_has_the_first_fault_and_the_number_of_others(savez):
    wrong = np.zeros((5, 6, 8), np.float32)
    with pytest.raises(
        SubmissionError, match=r"clip '-a_1': dtype .* \(1 more; 'avsb submit check .*' lists them\)"
    ):
        read_submission(savez(clips={"b.2": wrong, "-a_1": wrong}))


def error_of(path: Path) -> str | None:
    """Read all of a file; return the message of its refusal. Other exceptions fail the test."""
    try:
        with read_submission(path) as submission:
            for _, array in submission:
                assert array.shape[1:] == submission.header.size
    except SubmissionError as error:  # exit code 3
        return str(error)
    return None


@pytest.mark.parametrize("task", ["s4", "avss"])
def test_mutated_files_are_accepted_or_refused(savez, tmp_path, task, mutate):
    """1,500 random files per task are read or refused with exit code 3, in bounded time and memory."""
    seed = 20_240_917
    print(f"seed {seed}")
    rng = random.Random(seed)
    packed = savez(task).read_bytes()
    with np.load(savez(task)) as arrays:
        np.savez(tmp_path / "stored.npz", **arrays)
    originals = [packed, (tmp_path / "stored.npz").read_bytes()]
    path = tmp_path / "mutated.npz"
    accepted = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in range(1500):
        path.write_bytes(mutate(rng.choice(originals), rng))
        start = time.process_time()
        message = error_of(path)
        assert (message is None) == (check_submission(path) == [])
        assert time.process_time() - start < 1, f"file {i}"
        assert "\n" not in (message or "")
        accepted += message is None
    assert 0 < accepted < 1000
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 100e6


def test_an_incomplete_header(savez):
    value = json.dumps({"format": 1, "kind": "submission", "task": "s4"}).encode()
    path = repack(
        savez(),
        lambda e: [(n, npy(np.frombuffer(value, np.uint8)) if n == "header.npy" else d) for n, d in e],
    )
    assert "header: split must be a string, got None" in refused(path)
