"""CATR as in the paper: published weights are refused."""

from __future__ import annotations

import pytest
import torch
from avsbench_methods.catr import CATR

from avsbench_harness.errors import UsageError
from avsbench_harness.tasks import S4


def test_published_weights_do_not_fit_the_paper() -> None:
    with torch.device("meta"):
        model = CATR().build(S4, "pvt", variant="paper")
    with pytest.raises(UsageError, match="Check that task, backbone and variant"):
        model.load_upstream({"obj_queries.weight": torch.zeros(50, 256)})
