"""Submissions x solutions -> Scores, by canonical and by published protocols.

    from avsbench_harness.scoring import encode, score_object
    scores = score_object(encode(prob), masks)     # prob float32 (N,T,H,W) in [0,1], masks {0,1}
    scores.metrics["J"], scores.intervals["J"], scores.per_clip

Nothing here imports torch.
"""

from avsbench_harness.scoring.api import canonical, get_protocol, protocols, score_object, score_semantic
from avsbench_harness.scoring.compare import Comparison, compare
from avsbench_harness.scoring.scores import Scores, Unavailable
from avsbench_harness.scoring.submissions import score_protocols, score_submission
from avsbench_harness.submission.codes import decode, encode

__all__ = [
    "Comparison",
    "Scores",
    "Unavailable",
    "canonical",
    "compare",
    "decode",
    "encode",
    "get_protocol",
    "protocols",
    "score_object",
    "score_protocols",
    "score_semantic",
    "score_submission",
]
