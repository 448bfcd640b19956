"""Networks that break the contract of their interface are refused with one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from avsbench_harness.data.random_batch import random_batch
from avsbench_harness.engine.contract import check_losses, check_prediction, check_values, rounding
from avsbench_harness.engine.system import System
from avsbench_harness.engine.train import train
from avsbench_harness.errors import AvsbError
from avsbench_harness.method import from_folder
from avsbench_harness.tasks import AVSS, S4

PREDICTIONS = {
    "logits": (
        lambda p: p * 30 - 10,
        r"must return probabilities in \[0, 1\], and those for the first batch are in \[.*, .*\]; .*sigmoid",
    ),
    "above one": (lambda p: p.clamp(max=0) + 1.001, r"are in \[1.001, 1.001\]"),
    "logits in [0, 1] of the first batch": (
        lambda p: (p / (1 - p)).log().div(2).add(0.5),
        "for the first batch with more contrast are in",
    ),
    "nan": (lambda p: p * float("nan"), "The prediction of tiny for the first batch is not finite"),
    "channel": (lambda p: p.unsqueeze(2), r"it returned a tensor \(1, 5, 1, 32, 32\) of float32"),
    "half": (lambda p: p.half(), "of float16"),
    "double": (lambda p: p.double(), "of float64"),
    "numpy": (lambda p: p.numpy(), "it returned a ndarray"),
    "bool": (lambda p: p > 0.5, "of bool"),
    "flat": (lambda p: p.flatten(0, 1), r"it returned a tensor \(5, 32, 32\)"),
    "small": (lambda p: p[..., ::4, ::4], r"it returned a tensor \(1, 5, 8, 8\)"),
    "device": (lambda p: p.to("meta"), "on meta"),
    "tuple": (lambda p: (p,), "it returned a tuple"),
}

LOSSES = {
    "vector": (lambda terms: {"bce": terms["bce"].repeat(3)}, r"'bce' is a tensor \(3,\) of float32"),
    "tensor": (lambda terms: terms["bce"], r"it returned a tensor \(\) of float32"),
    "integer": (lambda terms: {"bce": terms["bce"].long()}, r"'bce' is a tensor \(\) of int64"),
    "number": (lambda terms: {"bce": float(terms["bce"].detach())}, "'bce' is a float"),
    "list": (lambda terms: list(terms.values()), "it returned a list"),
    "empty": (lambda terms: {}, "the dict is empty"),
    "name": (lambda terms: {1: terms["bce"]}, "a term has the name 1"),
    "escape": (lambda terms: {"a\x1b[31m": terms["bce"]}, "a term has the name 'a"),
    "reserved": (lambda terms: {"epoch": terms["bce"]}, "a term has the name 'epoch'"),
    "sum": (lambda terms: {**terms, "loss": terms["bce"]}, "called 'loss', the name of their sum"),
    "device": (lambda terms: {"bce": terms["bce"].to("meta")}, "'bce' is on meta"),
    "detached": (lambda terms: {"bce": terms["bce"].detach()}, "train nothing: no parameter has a gradient"),
    "zero": (lambda terms: {"bce": 0 * terms["bce"]}, "train nothing"),
    "leaf": (lambda terms: {"bce": torch.ones((), requires_grad=True)}, "train nothing"),
    "nan": (
        lambda terms: {"bce": terms["bce"] * float("nan")},
        r"The loss of tiny is not finite at step 1 \(bce nan\) on clips ",
    ),
}


def broken(planned, out: Path, monkeypatch: pytest.MonkeyPatch, name: str, change):
    """A run of the tiny method with a method of its network changed."""
    run = planned(out, "options.width=4", "iterations=2")
    network = type(run.build_model(pretrained=False))
    real = getattr(network, name)
    monkeypatch.setattr(network, name, lambda self, batch: change(real(self, batch)))
    return run


def refused(run, message: str) -> None:
    """Assert that training ends with one sentence before anything is saved."""
    with pytest.raises(AvsbError, match=message) as caught:
        train(run)
    assert "tiny" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not run.weights_file.exists()
    assert not list(run.folder.glob("checkpoints/step-*"))


@pytest.mark.parametrize("fault", PREDICTIONS)
def test_wrong_predictions_are_refused_at_the_first_batch(planned, tmp_path: Path, monkeypatch, fault: str):
    change, message = PREDICTIONS[fault]
    steps = []
    monkeypatch.setattr("avsbench_harness.engine.step.Stepper.step", lambda *_, **__: steps.append(1))
    refused(broken(planned, tmp_path, monkeypatch, "predict", change), message)
    assert not steps


@pytest.mark.parametrize("fault", LOSSES)
def test_wrong_losses_are_refused_at_the_first_batch(planned, tmp_path: Path, monkeypatch, fault: str):
    change, message = LOSSES[fault]
    refused(broken(planned, tmp_path, monkeypatch, "losses", change), message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "must return a dict of names and numbers, and it returned a NoneType"),
        ({"a": "x"}, "and 'a' is a str"),
        ({"a": torch.zeros(3)}, r"and 'a' is a tensor \(3,\) of float32"),
        ({"step": 5.0}, "of their own, and one is called 'step'"),
        ({"bce": 5.0}, "of their own, and one is called 'bce'"),
        ({"\x1b[31m": 5.0}, "one is called"),
    ],
)
def test_wrong_diagnostics_are_refused(planned, tmp_path: Path, monkeypatch, values, message: str):
    run = planned(tmp_path, "options.width=4", "iterations=2")
    network = type(run.build_model(pretrained=False))
    monkeypatch.setattr(network, "diagnostics", lambda self: values)
    refused(run, f"`diagnostics` of tiny .*{message}")


def test_wrong_counts_of_losses_are_refused(planned, tmp_path: Path, monkeypatch):
    run = planned(tmp_path, "options.width=4", "iterations=2", "accumulate=2")
    network = type(run.build_model(pretrained=False))
    monkeypatch.setattr(network, "loss_counts", lambda self, batch: {"bce": 3})
    with pytest.raises(AvsbError, match="`loss_counts` of TinyModel must return scalar tensors or None"):
        train(run)


def test_a_prediction_in_training_mode_is_refused(planned, tmp_path: Path, monkeypatch):
    run = planned(tmp_path, "options.width=4", "iterations=2")
    network = type(run.build_model(pretrained=False))
    real = network.predict
    monkeypatch.setattr(network, "predict", lambda self, batch: real(self.train(), batch))
    refused(run, r"`predict` of tiny sets the training mode; remove train\(\) from it")


def test_a_prediction_with_a_gradient_is_detached(tiny: str):
    system = System(from_folder(Path(tiny)).build(S4, "r50", width=4), None, "tiny")
    real = system.model.predict
    system.model.predict = torch.enable_grad()(real)
    assert not system.predict(random_batch(S4, side=16)).requires_grad


def test_the_check_changes_no_result(planned, tmp_path: Path, monkeypatch):
    """The random numbers, buffers and modes of training are those without the check."""
    ours, theirs = (planned(tmp_path / name, "options.width=4") for name in ("ours", "theirs"))
    train(ours)
    monkeypatch.setattr(System, "check_predict", lambda *_: None)
    train(theirs)
    assert ours.weights_file.read_bytes() == theirs.weights_file.read_bytes()


def test_predictions_are_checked_when_they_are_written(planned, tmp_path: Path, monkeypatch):
    """Also those of weights that were not trained here; nothing is clamped or written."""
    train(planned(tmp_path, "options.width=4", "iterations=2"))
    changed = broken(planned, tmp_path, monkeypatch, "predict", lambda p: 2 * p + 1)
    with pytest.raises(AvsbError, match=r"`predict` of tiny .* for clip \S+ are in \["):
        changed.method.predict(changed, "test")
    assert not changed.submission_file("test").exists()


def test_rounding_noise_is_no_fault():
    for value in (-9e-5, 0.0, 1.0, 1 + 9e-5):
        check_values(torch.tensor([value]), S4, "x", where="clip a")
    for value in (-1.1e-4, 1 + 1.1e-4):
        with pytest.raises(AvsbError, match=re.escape("in [0, 1]")):
            check_values(torch.tensor([value]), S4, "x", where="clip a")
    assert rounding("fp32") == 1e-4
    assert 1e-3 > rounding("fp16") > 9e-4
    assert rounding("bf16") == 2**-7
    check_values(torch.tensor([1 + 2**-7]), S4, "x", where="clip a", tolerance=rounding("bf16"))


def test_class_scores_may_have_any_finite_value():
    check_values(torch.tensor([-50.0, 50.0]), AVSS, "x", where="clip a")
    check_values(torch.empty(0), S4, "x", where="clip a")
    with pytest.raises(AvsbError, match="prediction of x for clip a is not finite"):
        check_values(torch.tensor([0, float("inf")]), AVSS, "x", where="clip a")


def test_class_scores_have_an_axis_of_classes():
    batch = random_batch(AVSS, side=16)
    clips, frames, height, width = batch.shape
    check_prediction(torch.zeros(clips, frames, 71, height, width), batch, AVSS, "x")
    for shape in ((clips, frames, height, width), (clips, frames, 72, height, width)):
        with pytest.raises(AvsbError, match="must return class scores, a float32 tensor"):
            check_prediction(torch.zeros(shape), batch, AVSS, "x")


def test_predictions_may_have_the_precision_of_autocast():
    batch = random_batch(S4, side=16)
    values = torch.zeros(batch.shape, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        check_prediction(values, batch, S4, "x")
    with pytest.raises(AvsbError, match="of bfloat16"):
        check_prediction(values, batch, S4, "x")


def test_a_batch_without_annotated_frames_may_have_constant_losses(tiny: str):
    """The system gives them a gradient of zero, which other processes wait for."""
    system = System(from_folder(Path(tiny)).build(S4, "r50", width=4), None, "tiny").train()
    batch = random_batch(S4, side=16)
    system.model.losses = lambda _: {"bce": torch.zeros(())}
    assert system.losses(batch)["bce"].requires_grad
    assert check_losses({"a": torch.zeros(())}, batch, "x")


@pytest.mark.gpu
def test_checks_do_not_synchronise_after_the_first_step(tiny: str):
    """torch raises an error on every synchronisation with the device."""
    system = System(from_folder(Path(tiny)).build(S4, "r50", width=4), None, "tiny").cuda().train()
    batch = random_batch(S4, side=16).to("cuda")
    system.losses(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        check_losses({"bce": torch.zeros((), device="cuda")}, batch, "tiny")
        check_prediction(torch.zeros(batch.shape, device="cuda"), batch, S4, "tiny")
    finally:
        torch.cuda.set_sync_debug_mode("default")
