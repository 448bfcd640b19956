"""Cost of the eight default audio conditions as a multiple of one plain prediction: ``nox -s bench``.

Processor time of :func:`predict_conditions` with eight conditions, and of :func:`predict` with clean audio,
both with decoded clips and audio embeddings in the cache and without maps of the backbone in it. Both write
submissions. The multiple of the networks alone is printed as well, for the presets ``mini`` and ``full``: a
prediction for the first recording, and those for seven more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from avsbench_harness.data.mini import write_mini
from avsbench_harness.data.random_batch import random_batch
from avsbench_harness.engine.predict import predict
from avsbench_harness.engine.predict_conditions import predict_conditions
from avsbench_harness.engine.system import build_system
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.method import get_method
from avsbench_harness.recipe.resolve import resolve
from avsbench_harness.robustness.conditions import DEFAULT_CONDITIONS
from avsbench_harness.tasks import MS3
from avsbench_harness.weights.tensors import save_tensors

#: Methods with a frozen backbone, and the largest multiple of the whole command. AVSegFormer misses the
#: target of 3: writing submissions of 224 pixels costs as much as its narrow network at 96 pixels.
LIMITS = {"combo": 3.0, "qdformer": 3.0, "avsegformer": 3.6}


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mini") / "data"
    write_mini(root, [MS3], (1, 1, 16), seed=5, jobs=1)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", LIMITS)
def test_the_suite_costs_at_most_three_predictions(name: str, mini: Path, tmp_path: Path) -> None:
    changes = ("backbone.cache=false", "batch_size=4")
    run = plan(
        Request(
            method=name, backbone="lite0", task="ms3", data=mini, preset="mini", out=tmp_path, device="cpu",
            workers=0, assignments=changes,
        )
    )  # fmt: skip
    run.folder.mkdir(parents=True)
    save_tensors(run.weights_file, build_system(run, pretrained=True).state_dict())
    predict_conditions(run, "test", DEFAULT_CONDITIONS)  # fills the caches
    plain = min(seconds(lambda: predict(run, "test")) for _ in range(2))
    suite = min(seconds(lambda: predict_conditions(run, "test", DEFAULT_CONDITIONS)) for _ in range(2))
    print(f"\n{name}: 8 conditions cost {suite / plain:.2f} predictions ({suite:.1f} s and {plain:.1f} s)")
    assert suite / plain <= LIMITS[name]


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "backbone"), [("mini", "lite0"), ("full", "r50")])
@pytest.mark.parametrize("name", ["aqformer", "avsegformer", "catr", "combo", "qdformer", "tpavi"])
def test_multiples_of_the_networks(name: str, preset: str, backbone: str) -> None:
    method = get_method(name)
    recipe = resolve(method, MS3, backbone, preset=preset)
    torch.manual_seed(0)
    model = method.build(MS3, backbone, **recipe.options).eval()
    batch = random_batch(MS3, side=recipe.image_size)
    with torch.no_grad():
        model.predict(batch)
        plain = min(seconds(lambda: model.predict(batch)) for _ in range(2))
        shared = batch.sharing()
        model.predict(shared)
        other = min(
            seconds(lambda: model.predict(shared.with_audio(torch.rand_like(batch.audio)))) for _ in range(2)
        )
    print(f"\n{name} {preset}: 8 recordings cost {(plain + 7 * other) / plain:.2f} predictions")
    assert other < plain
