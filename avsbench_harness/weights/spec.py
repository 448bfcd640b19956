"""The entries of a run's spec for weights that it loads. Imports no torch."""

from __future__ import annotations

from avsbench_harness.schema import Schema


class BackboneWeightsSpec(Schema):
    """Weights that the visual backbone starts from.

    Attributes:
        name: timm name with the tag of the weights; without a tag for weights of the user's own.
        sha256: of the file.
    """

    name: str
    sha256: str


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
