"""COMBO as released: encoder."""

from __future__ import annotations

import torch
from avsbench_methods.combo.encoder import FrozenBatchNorm2d

from .helpers import batch, build, seeded_input


def test_frozen_norms_never_change() -> None:
    model = build().train()
    norms = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    assert len(norms) == 28  # 14 in each of two backbones
    # Kernels have four axes; whatever else learned would belong to a norm.
    assert {parameter.dim() for parameter in model.backbone.parameters()} == {4}
    before = [norm.running_mean.clone() for norm in norms]
    model(batch())
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))


def test_trainable_norms_compute_the_same_in_evaluation() -> None:
    frozen, learning = build(), build(frozen_norm=False)
    state = frozen.state_dict()
    learning.load_state_dict(state, strict=False)
    counters = set(learning.state_dict()) - set(state)
    assert all(name.endswith("num_batches_tracked") for name in counters)
    assert counters
    with torch.no_grad():
        torch.testing.assert_close(learning(batch()).mask_logits, frozen(batch()).mask_logits)
        learning.train()
        learning(batch())
    assert learning.backbone.image.body.bn1.running_mean.any()


def test_random_weights_train_in_every_residual_branch() -> None:
    """timm starts the last norm of a branch with zeros; a frozen one would keep them."""
    model = build().train()
    masks = (seeded_input(1, "masks", (2, 3, 64, 64)) > 0).long()
    sum(model.losses(batch(masks=masks)).values()).backward()
    kernels = [parameter for parameter in model.backbone.image.parameters() if parameter.dim() == 4]
    assert kernels
    assert all(kernel.grad is not None and kernel.grad.any() for kernel in kernels)
