"""Scores of submissions against solutions, by the canonical and the published protocols. Without torch.

    from avsbench_harness.scoring import encode, score_object
    scores = score_object(encode(prob), masks)     # prob float32 (N,T,H,W) in [0,1], masks {0,1}
    scores.metrics["J"], scores.intervals["J"], scores.per_clip

The docstring of each protocol defines its metrics (:mod:`.object`, :mod:`.davis`, :mod:`.semantic`). Values
of a frame if the predicted mask b or the true mask g is empty ("-": the frame is not counted):

    protocol                              metric   b and g empty   only g empty             only b empty
    object/1                              J        1               share of pixels b = 0    0
    object/1                              F        -               -                        0
    object/1              false_positive_area      0               share of pixels b = 1    -
    avsbench, avsegformer, combo, catr    J        1               share of pixels b = 0    0
    avsbench, avsegformer, combo, catr    F        - (1)           - (1)                    0
    robust-fpr                            FPR      0               share of pixels b = 1    0
    davis, davis-semi                     J        1               0                        0
    davis, davis-semi                     F        1 (2)           0 (2)                    0 (2)
    semantic/1 and avss-*, per class      IoU, F   -               0                        0

(1) A batch without any non-empty g has F = 0. (2) F of DAVIS depends on the boundaries: a mask that fills the
frame has none and counts as empty. ``confusion`` sums pixels over the whole split.
"""

from avsbench_harness.scoring.api import canonical, get_protocol, protocols, score_object, score_semantic
from avsbench_harness.scoring.compare import Comparison, compare
from avsbench_harness.scoring.scores import Scores, Unavailable
from avsbench_harness.scoring.submissions import find_faults, score_protocols, score_submission
from avsbench_harness.submission.codes import decode, encode

__all__ = [
    "Comparison",
    "Scores",
    "Unavailable",
    "canonical",
    "compare",
    "decode",
    "encode",
    "find_faults",
    "get_protocol",
    "protocols",
    "score_object",
    "score_protocols",
    "score_semantic",
    "score_submission",
]
