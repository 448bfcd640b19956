"""Tests of the losses and gradients of a method's networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from avsbench_harness.data.batch import Batch
from avsbench_harness.engine.acceleration import accelerate
from avsbench_harness.engine.contract import check_losses
from avsbench_harness.engine.step import part_weights
from avsbench_harness.engine.system import System
from avsbench_harness.nn.model import Model
from avsbench_harness.recipe.schema import OptimizerRecipe, Recipe
from avsbench_harness.testing.method_suite.base import SuiteBase


class LossTests(SuiteBase):
    """Loss terms, their gradients and averages, and the parameter groups."""

    def test_losses_of_silent_clips_are_finite(self) -> None:
        """All masks are empty, and one frame of each clip is annotated."""
        for model in self.models():
            batch = self.batch(model.task)
            assert batch.annotated is not None
            first = torch.zeros_like(batch.annotated)
            first[:, 0] = True
            silent = replace(batch, masks=torch.zeros_like(batch.ground_truth()), annotated=first)
            losses = model.train().losses(silent)
            assert all(term.isfinite() for term in losses.values())

    def test_losses_are_named_scalars_with_gradients_for_every_parameter(self) -> None:
        """Except for the parameters in ``unused``."""
        for model in self.models():
            batch = self.batch(model.task)
            losses = check_losses(model.train().losses(batch), batch, self.method.name)
            assert all(term.isfinite() for term in losses.values())
            torch.stack(list(losses.values())).sum().backward()
            missing = [
                name
                for name, parameter in model.named_parameters()
                if parameter.requires_grad and parameter.grad is None and not name.startswith(self.unused)
            ]
            assert not missing, f"no gradient for {missing}"

    def test_losses_of_a_split_batch_average_to_those_of_the_whole(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With the weights of ``loss_counts``, for unequal parts, without batch statistics."""
        if not self.clips_are_independent:
            pytest.skip("clips_are_independent is False: losses depend on the other clips of the batch")
        real = torch.rand
        monkeypatch.setattr(
            torch, "rand", lambda *shape, **more: _same_for_all(real, shape).to(more.get("device"))
        )
        for model in self.models():
            batch = self.batch(model.task, clips=3, frames=3)
            masks, annotated, valid = batch.ground_truth().clone(), batch.annotated, batch.valid
            assert annotated is not None
            assert valid is not None
            masks[2, :, self.size // 2 :] = 1
            masks[1, 1] = 0
            annotated[0, 1:] = False
            valid[2, 2] = False
            batch = replace(batch, masks=masks)
            parts = [batch.select(slice(0, 1)), batch.select(slice(1, 3))]
            with torch.no_grad():
                whole, of_parts = model.losses(batch), [model.losses(part) for part in parts]
            weights = part_weights(model, list(whole), parts)
            for index, name in enumerate(whole):
                if name not in self.across_clips:
                    average = sum(
                        weight[index] * terms[name] for weight, terms in zip(weights, of_parts, strict=True)
                    )
                    assert_close(average, whole[name], rtol=1e-4, atol=1e-5, msg=f"{model.task.name} {name}")

    def test_channels_last_and_activation_checkpointing_keep_gradients(self) -> None:
        """Losses and gradients of the first task are the same with both."""
        plain, other = next(self.models()), next(self.models())
        recipe = Recipe(epochs=1, channels_last=True, activation_checkpointing=True)
        system = accelerate(System(other, None), recipe)
        batch = self.batch(plain.task, clips=1, frames=2)
        _assert_same_gradients(plain.losses, system.losses, plain, other, batch)

    def test_compiled_model_has_the_same_losses_and_gradients(self) -> None:
        """For the first task and variant, with the backend ``compiler``."""
        if self._variant != self.method.variants[0]:
            pytest.skip("compilation is tested with the method's first variant only")
        plain, other = next(self.models()), next(self.models())
        system = accelerate(System(other, None), Recipe(epochs=1, compile=True), self.compiler)
        batch = self.batch(plain.task, clips=1, frames=2)
        plain.train()
        _assert_same_gradients(plain.losses, system.train(), plain, other, batch)

    def test_parameter_groups_contain_every_parameter_once(self) -> None:
        """No parameter is missing in the optimiser or in it twice."""
        recipe = Recipe(epochs=1, optimizer=OptimizerRecipe(backbone_lr_scale=0.1))
        for model in self.models():
            grouped = [id(parameter) for group in model.param_groups(recipe) for parameter in group.params]
            assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


def _same_for_all(real: Callable[..., Tensor], shape: Sequence[int]) -> Tensor:
    """Return random numbers that are the same for every entry of the first axis and in every call."""
    return real(*shape[1:], generator=torch.Generator().manual_seed(0)).expand(*shape)


def _assert_same_gradients(
    one: Callable[[Batch], dict[str, Tensor]],
    other: Callable[[Batch], Any],
    one_model: Model,
    other_model: Model,
    batch: Batch,
) -> None:
    """Assert that two ways to compute the losses of equal networks give the same losses and gradients."""
    gradients = []
    values = []
    for losses, model in ((one, one_model), (other, other_model)):
        torch.manual_seed(0)
        terms = torch.stack(list(losses(batch).values()))
        terms.sum().backward()
        values.append(terms.detach())
        trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in trained]))  # type: ignore[union-attr]
    assert_close(values[1], values[0], rtol=1e-3, atol=1e-5)
    # Points and matches that depend on the losses may change with rounding errors.
    assert (gradients[1] - gradients[0]).norm() < 1e-2 * gradients[0].norm()
