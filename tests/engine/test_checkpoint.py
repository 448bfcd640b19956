from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from avsbench_harness.engine.checkpoint import (
    TrainState,
    load_checkpoint,
    save_checkpoint,
)
from avsbench_harness.errors import AvsbError


def trained(kind: type[torch.optim.Optimizer], **options: float) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = kind(model.parameters(), lr=0.1, **options)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize(
    ("kind", "options"),
    [(torch.optim.AdamW, {"betas": (0.8, 0.9)}), (torch.optim.SGD, {"momentum": 0.9}), (torch.optim.SGD, {})],
)
def test_optimizer_state_is_restored_bitwise(tmp_path: Path, kind, options) -> None:
    model, optimizer = trained(kind, **options)
    save_checkpoint(tmp_path, TrainState(step=2, seconds=1.5), model.state_dict(), optimizer)
    stored = load_checkpoint(tmp_path)
    assert stored is not None
    assert stored.state == TrainState(step=2, seconds=1.5)
    other, fresh = trained(kind, **options)
    other.load_state_dict(stored.weights)
    fresh.load_state_dict(stored.optimizer)
    for one, two in ((model, optimizer), (other, fresh)):
        one(torch.ones(1, 3)).sum().backward()
        two.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    model, optimizer = trained(torch.optim.AdamW)
    for step in (1, 2):
        save_checkpoint(tmp_path, TrainState(step=step), model.state_dict(), optimizer)
    (tmp_path / ".step-00000003.tmp").mkdir()  # left by a process killed while saving
    (tmp_path / ".step-00000003.tmp" / "weights.safetensors").write_bytes(b"half")
    stored = load_checkpoint(tmp_path)
    assert stored is not None
    assert stored.state.step == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002"]


def test_the_state_of_a_step_is_replaced(tmp_path: Path) -> None:
    model, optimizer = trained(torch.optim.AdamW)
    save_checkpoint(tmp_path, TrainState(step=1), model.state_dict(), optimizer)
    save_checkpoint(tmp_path, TrainState(step=1, seconds=9.0), model.state_dict(), optimizer)
    stored = load_checkpoint(tmp_path)
    assert stored is not None
    assert stored.state.seconds == 9.0
    assert stored.optimizer["state"]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "nowhere") is None


def test_a_damaged_optimizer_state_is_named(tmp_path: Path) -> None:
    model, optimizer = trained(torch.optim.AdamW)
    path = save_checkpoint(tmp_path, TrainState(step=1), model.state_dict(), optimizer) / "optimizer.pt"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(AvsbError, match=r"optimizer\.pt cannot be read .* remove .*step-00000001"):
        load_checkpoint(tmp_path)
