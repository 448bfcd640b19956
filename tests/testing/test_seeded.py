"""The drawn weights are part of the golden numbers: they may never change."""

from __future__ import annotations

import numpy as np
import torch

from avsbench_harness.testing.seeded import seeded_input, seeded_state, seeded_tensor


def test_draws_are_numpys_philox_keyed_by_seed_and_crc():
    expected = np.random.Generator(np.random.Philox(key=[3, 0xCBF43926]))  # the CRC-32 of "123456789"
    noise = expected.standard_normal((2, 4), dtype=np.float32)
    np.testing.assert_allclose(seeded_tensor(3, "123456789", (2, 4)), noise / 2, rtol=1e-6)


def test_names_decide_the_scale():
    state = seeded_state(
        1,
        {
            "bn.weight": [4000],
            "bn.bias": [4000],
            "bn.running_mean": [4000],
            "bn.running_var": [4000],
            "bn.num_batches_tracked": [],
            "conv.weight": [40, 25, 2, 2],
        },
    )
    facts = {
        name: (tensor.float().mean().item(), tensor.float().std(correction=0).item())
        for name, tensor in state.items()
    }
    np.testing.assert_allclose(facts["bn.weight"], (1, 0.1), atol=0.01)
    np.testing.assert_allclose(facts["bn.bias"], (0, 0.05), atol=0.01)
    np.testing.assert_allclose(facts["bn.running_mean"], (0, 0.1), atol=0.01)
    assert state["bn.running_var"].min() >= 1
    assert state["bn.num_batches_tracked"].dtype == torch.int64
    np.testing.assert_allclose(facts["conv.weight"], (0, 0.1), atol=0.01)


def test_inputs_have_streams_of_their_own():
    drawn = seeded_input(1, "audio", (2, 5, 128))
    assert drawn.dtype == torch.float32
    assert torch.equal(drawn, seeded_input(1, "audio", (2, 5, 128)))
    for other in (seeded_input(2, "audio", (2, 5, 128)), seeded_input(1, "images", (2, 5, 128))):
        assert not torch.equal(drawn, other)
