"""QDFormer's decomposition, compared with the paper's equations."""

from __future__ import annotations

import torch
from avsbench_methods.qdformer.decomposition import Recombination
from avsbench_methods.qdformer.options import Options
from torch.testing import assert_close

from avsbench_harness.tasks import S4

from .helpers import SMALL, draw


def test_equation_5() -> None:
    torch.manual_seed(0)
    module = Recombination(Options.of(SMALL, S4, "paper")).eval()
    with torch.no_grad():
        module.norm.weight.copy_(draw(32, seed=2))
        module.norm.bias.copy_(draw(32, seed=3))
        module.norm.running_mean.copy_(draw(32, seed=4))
        tokens, video = draw(2, 3, 32), draw(2, 32, 2, 3, seed=1)
        got = module(tokens, video)
        first, _, second = module.filters
        for frame in range(2):
            maps = []
            for token in tokens[frame]:
                w = second.weight @ (first.weight @ token + first.bias).clamp(min=0) + second.bias
                maps.append(torch.stack([w[c] * video[frame, c] for c in range(32)]))
            concatenated = torch.cat(maps)  # N x D_v channels, one token after another
            reduced = torch.einsum("oc,chw->ohw", module.reduce.weight[:, :, 0, 0], concatenated)
            summed = reduced + module.reduce.bias[:, None, None] + video[frame]
            scale = module.norm.weight / (module.norm.running_var + module.norm.eps).sqrt()
            want = (summed - module.norm.running_mean[:, None, None]) * scale[:, None, None]
            assert_close(got[frame], want + module.norm.bias[:, None, None], rtol=1e-4, atol=1e-5)
