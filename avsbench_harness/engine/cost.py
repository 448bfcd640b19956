"""What a network costs, whatever it runs on: parameters, and multiplications of one clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from avsbench_harness.bench.measure import random_batch
from avsbench_harness.data.batch import Batch
from avsbench_harness.engine.run import Run
from avsbench_harness.nn.model import Model


@dataclass(frozen=True)
class Cost:
    """The size of a network without its audio encoder.

    Attributes:
        parameters: their number.
        gmacs: multiply-accumulates of one clip's forward pass, in 10^9, in matrix products, convolutions and
            attention; what else a network does is not counted.
    """

    parameters: int
    gmacs: float


def run_cost(run: Run, model: Model) -> Cost:
    """The cost of a run's network for one clip of the task's length and the recipe's image size."""
    batch = random_batch(run.task, side=run.recipe.image_size)
    return cost(model, batch.to(next(model.parameters()).device))


def cost(model: Model, batch: Batch) -> Cost:
    """Count a network's parameters, and the multiplications of a batch of one clip.

    Args:
        model: in any mode; it is left as it was.
        batch: one clip of the size in question.
    """
    training = model.training
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    counter = FlopCounterMode(display=False)
    try:
        for parameter in learned:  # the counter hooks whatever wants a gradient, and finds no graph here
            parameter.requires_grad_(False)
        with torch.no_grad(), counter:
            model.eval()(batch)
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
        model.train(training)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters, counter.get_total_flops() / 2e9)
