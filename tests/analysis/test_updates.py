"""Gradients and updates of modules, compared with values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from avsbench_harness.analysis.updates import ModuleStep, ModuleUpdates, UpdateMonitor, module_of


class Product(nn.Module):
    """``b * (a x) + c``, with a frozen and an unused module."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(2, 1, bias=False)
        self.b = nn.Linear(1, 1)
        self.frozen = nn.Linear(1, 1).requires_grad_(False)
        self.unused = nn.Linear(1, 1)
        with torch.no_grad():
            self.a.weight.copy_(torch.tensor([[3.0, 4.0]]))
            self.b.weight.fill_(2.0)
            self.b.bias.zero_()
            self.unused.weight.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.b(self.a(x)).sum()
        return found


def observe(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    number: int = 1,
    monitor: UpdateMonitor | None = None,
) -> UpdateMonitor:
    """Make one step on the input (1, 2) and observe it."""
    monitor = monitor or UpdateMonitor({"": network}, optimizer)
    with monitor.observe(number):
        optimizer.zero_grad()
        network(torch.tensor([[1.0, 2.0]])).backward()
        optimizer.step()
    return monitor


def by_name(monitor: UpdateMonitor) -> dict[str, ModuleUpdates]:
    return {module.name: module for module in monitor.updates()}


def test_a_step_of_sgd() -> None:
    """The gradients are 2 (1, 2) for a, and a x = 11 and 1 for b's weight and bias."""
    network = Product()
    found = by_name(observe(network, torch.optim.SGD(network.parameters(), lr=0.1)))
    a, b = found["a"].steps[1], found["b"].steps[1]
    assert a.gradient_norm == pytest.approx(math.sqrt(20))
    assert b.gradient_norm == pytest.approx(math.sqrt(122))
    assert a.share == pytest.approx(20 / 142)
    assert b.share == pytest.approx(122 / 142)
    assert (a.weight_norm, b.weight_norm) == (5, 2)
    assert a.update_ratio == pytest.approx(0.1 * math.sqrt(20) / 5)
    assert b.update_ratio == pytest.approx(0.1 * 11 / 2)  # of the matrix alone
    assert (found["a"].parameters, found["b"].parameters) == (2, 2)


def test_steps_of_adam_with_a_constant_gradient_change_every_element_by_the_learning_rate() -> None:
    network = Product()
    network.b.requires_grad_(False)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    monitor = observe(network, optimizer)
    observe(network, optimizer, number=2, monitor=monitor)
    steps = by_name(monitor)["a"].steps
    assert steps[1].update_ratio == pytest.approx(1e-3 * math.sqrt(2) / 5, rel=1e-4)
    assert steps[2].weight_norm == pytest.approx(math.hypot(3 - 1e-3, 4 - 1e-3))
    assert steps[2].update_ratio == pytest.approx(1e-3 * math.sqrt(2) / steps[2].weight_norm, rel=1e-4)


def test_gradients_below_adams_epsilon_do_not_train() -> None:
    network = Product()
    with torch.no_grad():
        network.b.weight.fill_(1e-10)
    found = by_name(observe(network, torch.optim.Adam(network.parameters(), lr=1e-3, eps=1e-8)))
    (warning,) = found["a"].warnings()
    assert warning.startswith("a has an update-to-weight ratio of ")
    assert found["a"].steps[1].update_ratio == pytest.approx(
        1e-3 * math.hypot(1 / 101, 2 / 102) / 5, rel=0.05
    )


def test_frozen_modules_are_told_apart_from_modules_without_gradient() -> None:
    network = Product()
    found = by_name(observe(network, torch.optim.SGD(network.parameters(), lr=2e-4)))
    assert not list(found["a"].warnings())
    assert {name for name, module in found.items() if module.frozen} == {"frozen"}
    assert not list(found["frozen"].warnings())
    assert list(found["unused"].warnings()) == ["unused has no gradient in any observed step."]


def test_a_module_unfrozen_later_is_not_frozen() -> None:
    network = Product()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)
    network.a.requires_grad_(False)
    monitor = observe(network, optimizer)
    network.a.requires_grad_(True)
    observe(network, optimizer, number=2, monitor=monitor)
    assert not by_name(monitor)["a"].frozen


def test_parameters_without_gradient_are_named() -> None:
    network = Product()
    network.b.bias.register_hook(torch.zeros_like)
    found = by_name(observe(network, torch.optim.SGD(network.parameters(), lr=1e-4)))
    assert list(found["b"].warnings()) == [
        "These parameters of b have no gradient in any observed step: b.bias."
    ]


def test_many_parameters_without_gradient_are_one_warning() -> None:
    steps = {
        1: ModuleStep(1.0, 1.0, 1.0, 1e-3, tuple("abcde")),
        2: ModuleStep(1.0, 1.0, 1.0, 1e-3, tuple("edcb")),
    }
    assert list(ModuleUpdates("m", 5, False, steps).warnings()) == [
        "These parameters of m have no gradient in any observed step: b, c, d and 1 others."
    ]


@pytest.mark.parametrize(
    ("ratio", "warns"), [(9e-5, True), (1e-4, False), (1e-2, False), (1.1e-2, True), (None, False)]
)
def test_ratios_outside_of_the_usual_range_are_warned_of(ratio: float | None, warns: bool) -> None:
    steps = {1: ModuleStep(1.0, 1.0, 1.0, 1e-3, ()), 10: ModuleStep(1.0, 1.0, 1.0, ratio, ())}
    warnings = list(ModuleUpdates("m", 1, False, steps).warnings())
    assert bool(warnings) == warns
    assert all("in step 10" in warning and "in step 1," not in warning for warning in warnings)


def test_zero_weights_have_no_ratio() -> None:
    network = nn.Linear(2, 1)
    nn.init.zeros_(network.weight)
    found = by_name(observe(network, torch.optim.SGD(network.parameters(), lr=1.0)))
    assert found["weight"].steps[1].update_ratio is None


def test_rescaling_undoes_clipping() -> None:
    network = Product()
    monitor = observe(network, torch.optim.SGD(network.parameters(), lr=0.1))
    assert monitor.total(1) == pytest.approx(math.sqrt(142))
    before = by_name(monitor)["a"].steps[1]
    monitor.rescale(1, 3.0)
    after = by_name(monitor)["a"].steps[1]
    assert after.gradient_norm == pytest.approx(3 * before.gradient_norm)
    assert (after.share, after.update_ratio) == (before.share, before.update_ratio)


def test_networks_have_prefixes() -> None:
    network = Product()
    monitor = UpdateMonitor({"": network, "audio.": nn.Linear(1, 1)}, torch.optim.SGD(network.parameters()))
    assert [module.name for module in monitor.updates()] == [
        "a",
        "b",
        "frozen",
        "unused",
        "audio.weight",
        "audio.bias",
    ]


@pytest.mark.parametrize(
    ("parameter", "depth", "module"),
    [
        ("layers.0.attn.in_proj.weight", 3, "layers.0"),  # the item of a list
        ("scales.4.attn.in_proj.weight", 3, "scales.4"),  # the item of a mapping
        ("a.b.c.weight", 3, "a.b.c"),
        ("a.b.c.weight", 2, "a.b"),
        ("a.b.layers.1.weight", 3, "a.b.layers.1"),
        ("a.b.layers.1.weight", 1, "a"),
        ("a.b.own", 3, "a.b"),
        ("own", 3, "own"),
    ],
)
def test_modules_of_parameters(parameter: str, depth: int, module: str) -> None:
    block = nn.ModuleDict({"attn": nn.ModuleDict({"in_proj": nn.Linear(1, 1)})})
    inner = nn.Module()
    inner.c = nn.Linear(1, 1)
    inner.layers = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    root = nn.Module()
    root.layers, root.scales = nn.ModuleList([block]), nn.ModuleDict({"4": block})
    root.a = nn.Module()
    root.a.b = inner
    assert module_of(root, parameter, depth) == module
