"""AVSegFormer's masks, compared with the paper's equations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from avsbench_methods.avsegformer.masks import LinearClassifier, MaskHead
from avsbench_methods.avsegformer.options import Options

from avsbench_harness.tasks import S4


def test_mask_head_is_equation_3() -> None:
    torch.manual_seed(1)
    head = MaskHead(Options.of({"queries": 3, "dim": 32, "mask_mlp_dim": 7}, S4, "paper"), 1).double()
    queries, feature = torch.randn(2, 3, 32).double(), torch.randn(2, 20, 32).double()
    products = torch.einsum("nqc,npc->npq", queries, feature)
    mixed = feature + head.mlp_out(head.mlp_hidden(head.mlp_in(products).relu()).relu())
    assert isinstance(head.classifier, LinearClassifier)
    small = (mixed @ head.classifier.classify.weight[0, :, 0, 0] + head.classifier.classify.bias).view(
        2, 1, 4, 5
    )
    expected = F.interpolate(small, size=(16, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(head(queries, feature, (4, 5)), expected)
