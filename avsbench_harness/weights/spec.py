"""The entry of a run's spec for weights that it loads. Imports no torch."""

from __future__ import annotations

from avsbench_harness.schema import Schema


class WeightsSpec(Schema):
    """Weights that a run predicts with or starts from.

    Attributes:
        sha256: of the file; of the authors' file for published weights.
        file: name of the file, which has no influence on results.
        published: whether the method's authors published them, or a run of this harness made them.
    """

    sha256: str
    file: str
    published: bool
