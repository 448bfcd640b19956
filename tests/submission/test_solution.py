"""Solutions: fingerprints, private clips, and submissions for other solutions."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from avsbench_harness.errors import SubmissionError, UsageError
from avsbench_harness.submission import (
    Header,
    SolutionWriter,
    SubmissionWriter,
    fingerprint_solution,
    private_clips,
    read_solution,
    read_submission,
    write_solution,
)


def listed(masks, order=None):
    return ((clip, masks[clip], "v2") for clip in (order or masks))


@pytest.mark.parametrize("task", ["s4", "avss"])
def test_round_trip(pair, masks, task):
    with read_solution(pair(task)[1]) as solution:
        assert {k: v.tolist() for k, v in solution} == {k: v.tolist() for k, v in masks(task).items()}
        assert (solution.header.task, solution.header.split, solution.header.size) == (task, "test", (6, 8))
        assert [clip.subset for clip in solution.header.clips] == ["v2"] * 3
        assert solution.fingerprint == fingerprint_solution(task, "test", listed(masks(task)))


def test_empty_ground_truth_is_refused(tmp_path):
    path = tmp_path / "empty.npz"
    clips = {clip: np.zeros((5, 4, 4), np.uint8) for clip in "ab"}
    with pytest.raises(UsageError, match=r"The masks of all 2 test clips are empty, so .*empty\.npz would"):
        write_solution(path, "s4", "test", listed(clips))
    assert not path.exists()
    clips["b"][4, 3, 3] = 1
    write_solution(path, "s4", "test", listed(clips))


def test_fingerprint_depends_on_task_split_clips_and_masks(masks):
    given = masks("s4")
    fingerprint = fingerprint_solution("s4", "test", listed(given))
    assert fingerprint == fingerprint_solution("s4", "test", listed(given, sorted(given)))
    assert fingerprint == fingerprint_solution(
        "s4", "test", ((k, m.astype(bool), "x") for k, m in given.items())
    )
    flipped = {**given, "b.2": given["b.2"].copy()}
    flipped["b.2"][4, 5, 7] ^= 1
    others = [
        fingerprint_solution("s4", "val", listed(given)),
        fingerprint_solution("ms3", "test", listed(given)),
        fingerprint_solution("s4", "test", listed(flipped)),
        fingerprint_solution("s4", "test", (("x" + k, m, "v2") for k, m in given.items())),
        fingerprint_solution("s4", "test", ((k, m.transpose(0, 2, 1), "v2") for k, m in given.items())),
        fingerprint_solution("s4", "test", listed(given, ["b.2", "_c"])),
    ]
    assert len({fingerprint, *others}) == 7


def test_golden_fingerprint():
    """Submissions contain it: the value may change only with the version of the format."""
    masks = np.arange(2 * 3 * 4).reshape(2, 3, 4) % 2
    assert fingerprint_solution("s4", "test", [("b", masks, "s4"), ("a", masks[:1], "s4")]) == (
        "9f800a3c56f9fcbc3d328d6e18f146dc8b77e11cdf6e6e64f67e17263cea3468"
    )


@pytest.mark.parametrize(
    ("task", "value", "message"),
    [("s4", 2, "clip 'x': labels must lie in 0 to 1"), ("avss", 71, "0 to 70"), ("s4", 0.5, "integer")],
)
def test_invalid_masks_are_refused(tmp_path, task, value, message):
    with pytest.raises(SubmissionError, match=message):
        write_solution(tmp_path / "a.npz", task, "test", [("x", np.full((5, 4, 4), value), task)])
    assert list(tmp_path.iterdir()) == []


def test_private_clips_depend_on_the_seed_and_not_on_the_order():
    clips = [f"clip{i}" for i in range(100)]
    chosen = private_clips(clips, 0.3, seed=1)
    assert len(chosen) == 30
    assert chosen == private_clips(clips[::-1], 0.3, seed=1)
    assert chosen != private_clips(clips, 0.3, seed=2)
    assert private_clips(clips, 0, seed=1) == set()
    with pytest.raises(UsageError, match=r"\[0, 1\)"):
        private_clips(clips, 1.0, seed=1)


def test_private_clips_do_not_change_the_fingerprint(tmp_path, masks):
    given = masks("s4")
    plain = write_solution(tmp_path / "a.npz", "s4", "test", listed(given))
    split = write_solution(
        tmp_path / "b.npz", "s4", "test", listed(given), private=0.34, seed=5, synthetic=True
    )
    assert plain == split
    with read_solution(tmp_path / "b.npz") as solution:
        assert sum(clip.private for clip in solution.header.clips) == 1
        assert solution.header.synthetic


def test_a_bad_fraction_is_refused_before_the_work(tmp_path):
    with pytest.raises(UsageError):
        SolutionWriter(tmp_path / "a.npz", "s4", "test", private=-0.1)


def rewrite_header(path, change):
    with zipfile.ZipFile(path) as old:
        entries = [(info.filename, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in entries:
            if name == "header.npy":
                with new.open(name, "w") as file:
                    value = json.loads(data[data.index(b"{", 64) :])
                    np.lib.format.write_array(
                        file, np.frombuffer(json.dumps(change(value)).encode(), np.uint8), allow_pickle=False
                    )
            else:
                new.writestr(name, data)


def swap_hashes(value):
    clips = value["clips"]
    clips[0]["sha256"], clips[1]["sha256"] = clips[1]["sha256"], clips[0]["sha256"]
    return value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: {**v, "fingerprint": "0" * 64}, "its fingerprint is"),
        (swap_hashes, "its fingerprint is"),
        (lambda v: {**v, "clips": v["clips"][:-1]}, "does not list the clips"),
        (lambda v: {**v, "clips": [*v["clips"], v["clips"][0]]}, "does not list the clips"),
        (lambda v: {**v, "clips": []}, "non-empty list"),
        (lambda v: {**v, "clips": [{"id": "a"}]}, "a clip must have id, sha256, subset, private"),
        (lambda v: {**v, "synthetic": "no"}, "synthetic must be true or false"),
        (lambda v: {**v, "kind": "submission"}, "expected a solution"),
    ],
)
def test_invalid_headers_are_refused(pair, change, message):
    _, path = pair("s4")
    rewrite_header(path, change)
    with pytest.raises(SubmissionError, match=message):
        read_solution(path)


def test_changed_masks_are_refused(pair):
    _, path = pair("s4")
    with zipfile.ZipFile(path) as old:
        entries = [(info.filename, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w") as new:
        for name, data in entries:
            new.writestr(name, data[:-1] + bytes([data[-1] ^ 1]) if name == "b.2.npy" else data)
    with read_solution(path) as solution:
        solution.read("_c")
        with pytest.raises(SubmissionError, match=r"clip 'b\.2': its masks do not match their hash"):
            solution.read("b.2")


def test_mismatch_of_fingerprints_shows_both(pair, tmp_path, masks):
    submission, _ = pair("s4")
    given = masks("s4")
    given["b.2"][0, 0, 0] ^= 1
    other = write_solution(tmp_path / "other.npz", "s4", "test", listed(given))
    with read_submission(submission) as theirs, read_solution(tmp_path / "other.npz") as solution:
        (fault,) = solution.mismatches(theirs)
        assert theirs.header.solution in fault
        assert other in fault


def test_a_submission_for_another_split(pair, tmp_path, masks):
    submission, _ = pair("s4")
    write_solution(tmp_path / "other.npz", "s4", "val", listed(masks("s4")))
    with read_submission(submission) as theirs, read_solution(tmp_path / "other.npz") as solution:
        assert solution.mismatches(theirs) == [
            "it is for s4 test, the solution for s4 val; pass the solution of its split."
        ]


def test_padded_frames_are_refused(pair, masks, tmp_path):
    _, path = pair("avss")
    with read_solution(path) as solution:
        header = Header("avss", "test", solution.fingerprint, "padded", size=(6, 8))
        with SubmissionWriter(tmp_path / "padded.npz", header) as writer:
            for clip in solution.shapes:
                writer.add(clip, np.zeros((10, 6, 8), np.uint8))
        with read_submission(tmp_path / "padded.npz") as submission:
            assert solution.mismatches(submission) == [
                "clip '-a_1' has 10 frames, the solution 5; "
                "write all frames of the clip, without padded frames."
            ]
