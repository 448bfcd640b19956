"""Raw weights and their exponential moving average in one file: which are loaded is chosen and logged."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from avsbench_harness.errors import UsageError
from avsbench_harness.weights.state_files import read_state

RAW = {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(2)}
EMA = {name: value + 1 for name, value in RAW.items()}
BOTH: dict[str, Any] = {
    "timm": {"state_dict": RAW, "state_dict_ema": EMA, "epoch": 3, "arch": "x"},
    "convnext": {"model": RAW, "model_ema": EMA, "optimizer": {}},
    "average first": {"ema": EMA, "model": RAW},
    "upper case": {"model": RAW, "EMA": EMA},
    "nested": {"model": RAW, "ema": {"decay": 0.99, "module": EMA}},
    "shadow": {"state_dict": RAW, "model_ema": {"shadow": EMA}},
    "wrapped twice": {"state_dict": {"model": RAW, "ema_model": {"state_dict": EMA}}},
    "data-parallel": {
        "model": {f"module.{name}": value for name, value in RAW.items()},
        "ema_state": {f"module.{name}": value for name, value in EMA.items()},
    },
    "beside the entries": {**RAW, "model_ema": EMA},
    "prefix": {
        **RAW,
        "model_ema.decay": torch.ones(()),
        **{f"model_ema.{name}": value for name, value in EMA.items()},
    },
    "state of the average's optimiser": {"model": RAW, "optimizer_ema": {"lr": 1}, "ema": EMA},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def same(state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return state.keys() == wanted.keys() and all(torch.equal(state[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("kind", BOTH)
def test_raw_weights_are_the_default_and_ema_the_option(tmp_path: Path, caplog, kind: str) -> None:
    file = tmp_path / "weights.pth"
    torch.save(BOTH[kind], file)
    assert same(read_state(file), RAW)
    assert f"{file} holds raw and EMA weights" in caplog.text
    assert "the raw ones are loaded" in caplog.text
    caplog.clear()
    assert same(read_state(file, ema=True), EMA)
    assert f"of {file} are loaded; the raw weights beside them are not" in caplog.text


def test_safetensors_files_have_prefixes(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({**RAW, **{f"ema.{name}": value for name, value in EMA.items()}}, file)
    assert same(read_state(file), RAW)
    assert same(read_state(file, ema=True), EMA)


@pytest.mark.parametrize("ema", [False, True])
def test_a_file_with_the_average_alone_gives_it(tmp_path: Path, caplog, ema: bool) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"model_ema": EMA, "epoch": 3}, file)
    assert same(read_state(file, ema=ema), EMA)
    assert f"The EMA weights ('model_ema') of {file} are loaded." in caplog.text


@pytest.mark.parametrize(
    "content",
    [RAW, {"state_dict": RAW}, {"state_dict": RAW, "state_dict_ema": None}, {"model": RAW, "ema": {}},
     {"model": RAW, "schema": EMA}],
)  # fmt: skip
def test_files_without_an_average(tmp_path: Path, caplog, content: dict[str, Any]) -> None:
    file = tmp_path / "weights.pth"
    torch.save(content, file)
    assert same(read_state(file), RAW)
    assert caplog.text == ""
    with pytest.raises(UsageError, match=r"weights\.pth holds no EMA weights; leave out --ema"):
        read_state(file, ema=True)


def test_a_module_called_ema_is_part_of_the_network(tmp_path: Path, caplog) -> None:
    """Its entries are no copies of the others."""
    state = {**RAW, "ema.codebook": torch.ones(4)}
    torch.save(state, tmp_path / "weights.pth")
    assert same(read_state(tmp_path / "weights.pth"), state)
    assert caplog.text == ""
