from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from avsbench_harness.errors import AvsbError
from avsbench_harness.launch import check_plan
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.tasks import AVSS, S4


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
