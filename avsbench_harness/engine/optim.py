"""Optimisers, learning-rate schedules and freezing of the backbone."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import torch
from torch import nn

from avsbench_harness.data.epochs import Epochs
from avsbench_harness.nn.model import ParamGroup
from avsbench_harness.recipe.schema import BackboneRecipe, OptimizerRecipe, Recipe, ScheduleRecipe


def build_optimizer(groups: Sequence[ParamGroup], recipe: OptimizerRecipe) -> torch.optim.Optimizer:
    """The optimiser over all parameter groups, frozen parameters included.

    Without a gradient these are neither updated nor decayed.
    """
    settings = [
        {
            "params": group.params,
            "lr": recipe.lr * group.lr_scale,
            "initial_lr": recipe.lr * group.lr_scale,
            "weight_decay": recipe.weight_decay if group.weight_decay is None else group.weight_decay,
        }
        for group in groups
        if group.params
    ]
    # Fused: one pass over the memory of each parameter.
    if recipe.name == "sgd":
        return torch.optim.SGD(settings, lr=recipe.lr, momentum=recipe.momentum, fused=True)
    kind = torch.optim.AdamW if recipe.name == "adamw" else torch.optim.Adam
    return kind(settings, lr=recipe.lr, betas=recipe.betas, fused=True)


def lr_factor(schedule: ScheduleRecipe, step: int, total: int, epoch: int) -> float:
    """The learning-rate multiplier of one step of ``total``, in its epoch (both counted from 0)."""
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "step":
        return schedule.gamma ** bisect.bisect_right(schedule.milestones, epoch)
    progress = (step - schedule.warmup_steps) / max(1, total - schedule.warmup_steps)
    if schedule.name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return float((1 - progress) ** schedule.power)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to ``factor`` times its initial one."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def set_training(model: nn.Module, backbone: nn.Module, recipe: BackboneRecipe, epoch: int) -> None:
    """Set training mode for an epoch (counted from 0), with a frozen backbone if the recipe asks for it."""
    model.train()
    frozen = recipe.freeze_epochs == "all" or epoch < recipe.freeze_epochs
    backbone.requires_grad_(not frozen)
    if recipe.freeze_norm:
        for module in backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def length(recipe: Recipe, epochs: Epochs) -> int:
    """The number of steps of a run."""
    if recipe.iterations is not None:
        return recipe.iterations
    assert recipe.epochs is not None  # the recipe was validated
    return epochs.start(recipe.epochs)
