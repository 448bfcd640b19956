"""QDFormer's mask_decoder, compared with the paper's equations."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from avsbench_methods.qdformer.mask_decoder import dynamic_convolution
from torch import Tensor
from torch.testing import assert_close

from .helpers import TABLE_2, build, clips, draw


def test_equation_7() -> None:
    features, filters = draw(2, 4, 3, 5), draw(2, 3, 5, seed=1)
    got = dynamic_convolution(features, filters)
    assert got.shape == (2, 3, 3, 5)
    for frame, query in itertools.product(range(2), range(3)):
        kernel, bias = filters[frame, query, :4].view(1, 4, 1, 1), filters[frame, query, 4:]
        assert_close(got[frame, query], F.conv2d(features[frame : frame + 1], kernel, bias)[0, 0])


def test_the_queries_are_the_quantised_tokens_of_their_frame() -> None:
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        def hook(_: Any, inputs: tuple[Tensor, ...]) -> None:
            seen[name] = inputs[0]

        return hook

    batch = clips()
    for name, changes in {**TABLE_2, "clip tokens only": {"calibration": False}}.items():
        model = build(**changes)
        model.mask_decoder.register_forward_pre_hook(note(name))
        with torch.no_grad():
            output = model(batch)
        want = {
            "non-Q SD": lambda out: out.frame_tokens.flatten(0, 1),
            "Q SD": lambda out: out.frame_codes.flatten(0, 1),
            "Q SD + AVSR": lambda out: out.frame_codes.flatten(0, 1),
            "Q SD + AVSR + LC": lambda out: out.frame_codes.flatten(0, 1),
            "clip tokens only": lambda out: out.clip_codes.repeat_interleave(3, dim=0),
        }.get(name)
        if want is not None:
            assert_close(seen[name], want(output))
    baseline = seen["baseline"]  # the fused sound of each frame, the same for all queries
    assert_close(baseline, baseline[:, :1].expand_as(baseline))
    assert (baseline[0] - baseline[1]).abs().max() > 1e-3
