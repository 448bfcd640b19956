"""Forward pass and training step of every method in multiples of its bare backbone: ``nox -s bench``.

One clip of five frames at 224 pixels, float32, two threads, every frame annotated; times are processor
time, taken in turns with the backbone's. The limits lie below what the published code needs, which is
printed beside them.
"""

from __future__ import annotations

import pytest
import torch

from avsbench_harness.engine.bench import measure, random_batch
from avsbench_harness.engine.recipe import resolve
from avsbench_harness.method import get_method
from avsbench_harness.nn.backbone import build_backbone
from avsbench_harness.tasks import get_task

#: (method, backbone): published and allowed multiple of the forward pass, then of the step.
LIMITS = {
    ("avsegformer", "r50"): ((9.8, 7.0), (9.2, 7.0)),
    ("avsegformer", "pvt"): ((3.1, 2.5), (4.5, 3.6)),
    ("combo", "r50"): ((7.2, 5.0), (6.5, 5.0)),
    ("combo", "pvt"): ((4.4, 3.3), (4.8, 3.8)),
    ("catr", "pvt"): ((2.7, 1.9), (3.4, 2.7)),
    ("tpavi", "r50"): ((9.6, 6.0), (8.8, 6.0)),
    ("tpavi", "pvt"): ((4.0, 2.8), (3.8, 2.8)),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backbone"), LIMITS)
def test_multiples_of_the_bare_backbone(name: str, backbone: str) -> None:
    method, task = get_method(name), get_task("s4")
    torch.manual_seed(0)
    model = method.build(task, backbone, variant="released")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = measure(model, build_backbone(backbone), resolve(method, task, backbone), random_batch(task))
    finally:
        torch.set_num_threads(threads)
    (_, forward), (_, step) = limits = LIMITS[name, backbone]
    print(
        f"\n{name} {backbone}: forward {found.of_forward:.2f} (published {limits[0][0]}, allowed {forward}), "
        f"step {found.of_step:.2f} (published {limits[1][0]}, allowed {step}) times the backbone; "
        f"backbone {found.backbone_forward:.2f} s and {found.backbone_step:.2f} s"
    )
    assert found.of_forward <= forward
    assert found.of_step <= step
