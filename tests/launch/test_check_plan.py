from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from avsbench_harness.errors import AvsbError, UsageError
from avsbench_harness.launch import check_plan
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.tasks import AVSS, S4

#: The start of the tiny method's prediction.
PREDICT = "def predict(self, batch: Batch) -> Tensor:"


def test_metric_names_are_those_of_the_validation() -> None:
    assert {"J", "F"} <= set(check_plan.metric_names(S4))
    assert "mIoU" in check_plan.metric_names(AVSS)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "raise KeyError('x')",
            r"tiny cannot build its network for s4 with r50: KeyError: 'x' \(model.py",
        ),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import missing_module", "No module named 'missing_module'"),
    ],
)
def test_a_network_that_cannot_be_built_is_one_sentence(
    tiny: str, real_s4: Path, tmp_path: Path, fault: str, message: str
) -> None:
    folder = tmp_path / "method"
    shutil.copytree(tiny, folder)
    text = (
        (folder / "model.py").read_text().replace("self.task = task", f"self.task = task\n        {fault}", 1)
    )
    (folder / "model.py").write_text(text)
    with pytest.raises(AvsbError, match=message) as error:
        plan(Request(str(folder), "r50", data=real_s4, device="cpu", out=tmp_path / "out"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("[]", "`param_groups` of tiny has no parameter of the network, so nothing is trained"),
        ("2 * super().param_groups(recipe)", "`param_groups` of tiny has a parameter in two groups"),
        ("[dataclasses.replace(group, lr_scale=float('inf')) for group in super().param_groups(recipe)]",
         "`param_groups` of tiny has a learning rate that is not finite"),
        ("[{'params': list(self.parameters())}]", "AttributeError: 'dict' object has no attribute"),
    ],
)  # fmt: skip
def test_learning_rate_groups_are_checked(
    tiny: str, real_s4: Path, tmp_path: Path, groups: str, message: str
) -> None:
    folder = tmp_path / "method"
    shutil.copytree(tiny, folder)
    with (folder / "model.py").open("a") as file:
        file.write(
            f"\n    def param_groups(self, recipe):\n        import dataclasses\n        return {groups}\n"
        )
    with pytest.raises(AvsbError, match=message):
        plan(Request(str(folder), "r50", data=real_s4, device="cpu", out=tmp_path / "out"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "images = batch.images.unflatten(-1, (-1, 9))",
            r"tiny cannot predict 5 frames of [0-9]+x[0-9]+ pixels .*RuntimeError.*, model.py, line",
        ),
        ("batch.images.new_empty(10**6, 10**6)", "a tensor of 3,725 GiB for one clip"),
        ("self.layers = nn.Sequential(*[nn.Linear(1, 1) for _ in range(10**9)])", "10,000 tensors"),
    ],
)
def test_a_network_that_cannot_predict_is_refused(
    tiny: str, real_s4: Path, tmp_path: Path, change: str, message: str
) -> None:
    folder = tmp_path / "method"
    shutil.copytree(tiny, folder)
    text = (folder / "model.py").read_text()
    place = "self.task = task" if "self.layers" in change else PREDICT
    assert text.count(place) == 1
    (folder / "model.py").write_text(text.replace(place, f"{place}\n        {change}"))
    with pytest.raises(UsageError, match=message):
        plan(Request(str(folder), "r50", data=real_s4, device="cpu", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_values_that_the_meta_device_lacks_are_no_fault(tiny: str, real_s4: Path, tmp_path: Path) -> None:
    """A prediction that depends on values in its own way is confirmed by one on the CPU."""
    folder = tmp_path / "method"
    shutil.copytree(tiny, folder)
    text = (folder / "model.py").read_text()
    change = "(5, 6)[int(batch.valid_frames().sum()) - 5], (5,)[int(batch.images.sum() > 0)]"
    (folder / "model.py").write_text(text.replace(PREDICT, f"{PREDICT}\n        {change}"))
    plan(Request(str(folder), "r50", data=real_s4, device="cpu"))


@pytest.mark.parametrize(
    ("method", "assignment", "message"),
    [
        ("aqformer", "image_size=48", "multiples of 32"),
        ("catr", "image_size=225", "multiples of 16"),
        ("tpavi", "image_size=1", "multiples of 32"),
        ("avsegformer", "options.queries=1000000", "29,802 GiB for one clip"),
        ("avsegformer", "options.dim=40", "multiple of 32"),
        ("qdformer", "options.heads=7", "does not divide dim"),
        ("catr", "options.ffn_dim=100000000000", "billion parameters"),
    ],
)
def test_options_that_cannot_work(
    real_s4: Path, tmp_path: Path, method: str, assignment: str, message: str
) -> None:
    asked = Request(
        method, "r50", data=real_s4, device="cpu", pretrained=False, out=tmp_path / "out",
        assignments=[assignment],
    )  # fmt: skip
    with pytest.raises(UsageError, match=message):
        plan(asked)
    assert not (tmp_path / "out").exists()


def test_equal_networks_are_built_once(tiny: str, real_s4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    build = check_plan.meta_system
    monkeypatch.setattr(check_plan, "meta_system", lambda run: built.append(run.id) or build(run))
    monkeypatch.setattr(check_plan, "_checked", set())
    for seed in range(3):
        plan(Request(tiny, "r50", data=real_s4, device="cpu", seed=seed))
    assert len(built) == 1
    plan(Request(tiny, "r50", data=real_s4, device="cpu", assignments=["options.width=3"]))
    assert len(built) == 2
    plan(Request(tiny, "r50", data=real_s4, device="cpu", assignments=["options.width=5"]), check=False)
    assert len(built) == 2


def test_the_largest_seed_trains(planned, tmp_path: Path) -> None:
    run = planned(tmp_path, "iterations=1", "epochs=null", seed=2**63)
    assert run.method.train(run).steps == 1
