"""Runs that are not trained: they take over the weights that their spec names."""

from __future__ import annotations

from avsbench_harness import distributed
from avsbench_harness.engine.cost import run_cost
from avsbench_harness.engine.load_weights import read_weights
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.train import alone, finished
from avsbench_harness.errors import AvsbError
from avsbench_harness.files import sha256_file, write_json
from avsbench_harness.method import TrainingSummary
from avsbench_harness.weights.tensors import save_tensors


def adopt(run: Run) -> TrainingSummary:
    """Put the checkpoint of the run's spec where training would put its weights, once.

    Raises:
        AvsbError: the checkpoint cannot be read or has changed.
        Busy: another process works on this run.
    """
    source = run.spec.checkpoint
    assert source is not None  # the caller asks only for runs with a checkpoint
    with distributed.main_process_first():
        if distributed.rank() == 0:
            with alone(run):
                if finished(run) is None:
                    _adopt(run, published=source.published)
    done = finished(run)
    assert done is not None  # rank 0 has seen to it
    return done


def _adopt(run: Run, *, published: bool) -> None:
    path = run.weights["checkpoint"]
    assert run.spec.checkpoint is not None
    if not published and sha256_file(path) != run.spec.checkpoint.sha256:
        raise AvsbError(f"{path} changed while the run was planned; start it again.")
    write_json(run.folder / "spec.json", run.spec.model_dump(mode="json"))
    save_tensors(run.weights_file, read_weights(path, published=published))
    size = run_cost(run, run.build_model(pretrained=False))
    checkpoint = TrainingSummary(
        weights_file=run.weights_file.name,
        steps=0,
        selected_step=0,
        validations=[],
        seconds=0.0,
        device=run.device,
        parameters=size.parameters,
        gmacs=size.gmacs,
    )
    write_json(run.folder / "training.json", checkpoint.model_dump(mode="json"))
