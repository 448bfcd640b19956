"""QDFormer's decomposition, compared with the paper's equations."""

from __future__ import annotations

import torch
from avsbench_methods.qdformer.decomposition import Recombination, SemanticDecoder
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


def test_prototypes_as_content_or_as_positions() -> None:
    """Without attention and feed-forward network, tokens are the prototypes, or independent of them."""
    prototypes, audio = draw(3, 32).expand(2, 3, 32), draw(2, 4, 32, seed=1)
    for kind in ("content", "positions"):
        torch.manual_seed(0)
        decoder = SemanticDecoder(Options.of({**SMALL, "prototypes": kind}, S4, "paper")).eval()
        with torch.no_grad():
            whole, single = decoder(prototypes, audio), decoder(prototypes, audio[:, :1])
            for name, parameter in decoder.named_parameters():
                if name.endswith(("out_proj.weight", "linear2.weight", "out_proj.bias", "linear2.bias")):
                    parameter.zero_()
            tokens = decoder(prototypes, audio)
        assert (whole[:, 0] - whole[:, 1]).abs().max() > 1e-3
        # Positions select among several frames' audio; over a single one there is nothing to select.
        assert torch.allclose(single[:, 0], single[:, 1], atol=1e-5) == (kind == "positions")
        scale = prototypes.std(dim=-1, unbiased=False, keepdim=True)
        normalised = (prototypes - prototypes.mean(dim=-1, keepdim=True)) / scale
        want = normalised if kind == "content" else torch.zeros(2, 3, 32)
        assert_close(tokens, want, rtol=1e-3, atol=1e-3)
