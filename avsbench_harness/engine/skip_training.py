"""Runs that are not trained: the weights that their spec names are used instead."""

from __future__ import annotations

from avsbench_harness import distributed
from avsbench_harness.engine.load_weights import read_verified
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.run_folder import exclusive, read_summary, write_spec, write_summary
from avsbench_harness.method import TrainingSummary
from avsbench_harness.nn.cost import model_cost
from avsbench_harness.weights.tensors import save_tensors


def skip_training(run: Run) -> TrainingSummary:
    """Copy the weights of the run's spec to where training would leave them, once.

    Raises:
        AvsbError: the weights cannot be read or have changed.
        Busy: another process works on this run.
    """
    summary: TrainingSummary | None = None
    with distributed.main_process_first():
        if distributed.rank() == 0:
            with exclusive(run):
                summary = read_summary(run) or _copy_weights(run)
    summary = distributed.broadcast(summary)
    assert summary is not None  # rank 0 has sent it
    return summary


def _copy_weights(run: Run) -> TrainingSummary:
    source, path = run.spec.weights, run.weights["weights"]
    assert source is not None  # the caller asks only for runs with weights
    state = read_verified(path, source)
    write_spec(run)
    save_tensors(run.weights_file, state)
    cost = model_cost(run.build_model(pretrained=False), run.recipe.image_size)
    summary = TrainingSummary(
        weights_file=run.weights_file.name,
        steps=0,
        selected_step=0,
        validations=[],
        seconds=0.0,
        device=run.device,
        parameters=cost.parameters,
        gmacs=cost.gmacs,
    )
    write_summary(run, summary)
    return summary
