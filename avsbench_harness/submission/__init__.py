"""Submissions and solutions: the predictions and the ground truth of one split, one ``.npz`` file each.

``submissions/README.md`` describes the format.
"""

from avsbench_harness.submission.codes import EDGES, THRESHOLDS, decode, encode, labels_from_scores
from avsbench_harness.submission.header import Header, SolutionClip, SolutionHeader
from avsbench_harness.submission.reader import Submission, check_submission, read_submission
from avsbench_harness.submission.solution import (
    ClipMasks,
    Solution,
    SolutionWriter,
    fingerprint_solution,
    private_clips,
    read_solution,
    write_solution,
)
from avsbench_harness.submission.writer import SubmissionWriter

__all__ = [
    "EDGES",
    "THRESHOLDS",
    "ClipMasks",
    "Header",
    "Solution",
    "SolutionClip",
    "SolutionHeader",
    "SolutionWriter",
    "Submission",
    "SubmissionWriter",
    "check_submission",
    "decode",
    "encode",
    "fingerprint_solution",
    "labels_from_scores",
    "private_clips",
    "read_solution",
    "read_submission",
    "write_solution",
]
