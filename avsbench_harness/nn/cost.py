"""The cost of a network on any device: parameters and multiply-accumulates of one clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from avsbench_harness.data.batch import Batch
from avsbench_harness.nn.model import Model


@dataclass(frozen=True)
class Cost:
    """The size of a network without its audio encoder.

    Attributes:
        parameters: number of parameters.
        gmacs: 10^9 multiply-accumulates of one clip's forward pass in matrix products, convolutions and
            attention; other operations are not counted.
    """

    parameters: int
    gmacs: float


def model_cost(model: Model, image_size: int) -> Cost:
    """Count the parameters of a network, and its multiply-accumulates for one clip.

    Args:
        model: in any mode, on any device; it is left unchanged.
        image_size: side of the input, pixels.
    """
    device = next(model.parameters()).device
    images = torch.zeros(1, model.task.frames, 3, image_size, image_size, device=device)
    batch = Batch(images, torch.zeros(1, model.task.frames, 128, device=device), maskige=images)
    training = model.training
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    counter = FlopCounterMode(display=False)
    try:
        for parameter in trainable:  # the counter hooks tensors that require gradients, and there is no graph
            parameter.requires_grad_(False)
        with torch.no_grad(), counter:
            model.eval()(batch)
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        model.train(training)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters, counter.get_total_flops() / 2e9)
