"""Check of a network before a method's own training."""

from __future__ import annotations

from avsbench_harness import distributed
from avsbench_harness.data.loader import load
from avsbench_harness.engine.inputs import training_epochs
from avsbench_harness.engine.interrupt import stop_request
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.system import build_system, set_determinism
from avsbench_harness.engine.training_set import training_set


def check_untrained(run: Run) -> None:
    """Check the prediction of the untrained network, for a method with a training of its own.

    Raises:
        AvsbError: it breaks the contract of the network, see :mod:`.contract`.
    """
    set_determinism(run)
    with stop_request() as stop, distributed.main_process_first():
        dataset = training_set(run, stop, ahead=False)
    first = training_epochs(run, len(dataset)).batch(0)[:1]
    (batch,) = load(dataset, [first], workers=0, device=run.device)
    build_system(run, pretrained=False).to(run.device).check_predict(batch.to(run.device))
