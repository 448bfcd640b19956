"""The tests that every method passes; a plugin's tests inherit them, a third party's too.

    from avsbench_harness.testing.method_suite import MethodSuite

    class TestMine(MethodSuite):
        method = Mine()
        options = {"dim": 32}  # a small network
        backbone = "resnet10t"

pytest collects the ``test_`` methods of the subclass. Every test runs for every task of the method; a method
with several variants has a subclass for each.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from avsbench_harness.data.batch import Batch
from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.engine.acceleration import accelerate
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.step import part_weights
from avsbench_harness.engine.system import System
from avsbench_harness.engine.train import Trainer, train
from avsbench_harness.errors import AvsbError, Interrupted, UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.method import Method
from avsbench_harness.nn.model import Model
from avsbench_harness.recipe.resolve import presets, resolve
from avsbench_harness.recipe.schema import OptimizerRecipe, Recipe
from avsbench_harness.tasks import Task, get_task


class MethodSuite:
    """What a plugin promises, as tests.

    Attributes:
        method: the plugin.
        variant: which of its variants; ``None``: its first.
        tasks: which of its tasks that variant does; ``None``: all.
        options: build options that make the network small.
        backbone: a small one.
        size: side of the images, pixels.
        frames: of a clip, where a test does not say otherwise; ``None``: of the task's longest clip.
        maskige: whether batches carry maskiges.
        clips_are_independent: whether in evaluation mode a clip's prediction does not depend on the others.
        padding_is_inert: whether a padded clip is predicted like one without its missing frames.
        across_clips: loss terms that compare frames of different clips of a batch.
        compiler: the backend of ``torch.compile`` that is tested, from ``AVSB_TEST_COMPILER``;
            ``inductor`` generates code.
        unused: parameters (prefixes of their names) that no loss reaches, each for a documented reason.
    """

    method: ClassVar[Method]
    variant: ClassVar[str | None] = None
    tasks: ClassVar[tuple[str, ...] | None] = None
    options: ClassVar[dict[str, Any]] = {}
    backbone: ClassVar[str] = "resnet10t"
    size: ClassVar[int] = 64
    frames: ClassVar[int | None] = None
    maskige: ClassVar[bool] = False
    clips_are_independent: ClassVar[bool] = True
    padding_is_inert: ClassVar[bool] = True
    unused: ClassVar[tuple[str, ...]] = ()
    across_clips: ClassVar[tuple[str, ...]] = ()
    compiler: ClassVar[str] = os.environ.get("AVSB_TEST_COMPILER", "eager")

    def models(self, seed: int = 0) -> Iterator[Model]:
        """A network for each task, in evaluation mode, the same for the same seed."""
        for name in self._tasks:
            torch.manual_seed(seed)
            yield self.build(get_task(name)).eval()

    def build(self, task: Task) -> Model:
        """The small network."""
        return self.method.build(task, self.backbone, variant=self._variant, **self.options)

    @property
    def _tasks(self) -> tuple[str, ...]:
        return self.tasks or self.method.tasks

    @property
    def _variant(self) -> str:
        return self.variant or self.method.variants[0]

    def batch(self, task: Task, clips: int = 2, frames: int | None = None, seed: int = 0) -> Batch:
        """Random clips with ground truth in every frame, the last class among it."""
        draw = torch.Generator().manual_seed(seed)
        count = frames or self.frames or task.frames
        shape = (clips, count, 3, self.size, self.size)
        masks = torch.zeros(clips, count, self.size, self.size, dtype=torch.int64)
        masks[..., : self.size // 2, : self.size // 2] = max(1, task.channels - 1)
        return Batch(
            images=torch.randn(shape, generator=draw),
            audio=torch.rand(clips, count, 128, generator=draw),
            valid=torch.ones(clips, count, dtype=torch.bool),
            maskige=torch.randn(shape, generator=draw) if self.maskige else None,
            masks=masks,
            annotated=torch.ones(clips, count, dtype=torch.bool),
        )

    def test_predictions_have_the_promised_shape_and_range(self) -> None:
        """(B,T,H,W) probabilities, or (B,T,71,H,W) scores; float32, finite."""
        for model in self.models():
            batch = self.batch(model.task)
            clips, frames, height, width = batch.shape
            with torch.no_grad():
                prediction = model.predict(batch)
            classes = (model.task.channels,) if model.task.semantic else ()
            assert prediction.shape == (clips, frames, *classes, height, width)
            assert prediction.dtype == torch.float32
            assert prediction.isfinite().all()
            if not model.task.semantic:
                assert prediction.min() >= 0
                assert prediction.max() <= 1

    def test_raw_outputs_are_a_dataclass_of_tensors(self) -> None:
        """What ``forward`` returns is documented data."""
        for model in self.models():
            with torch.no_grad():
                output = model(self.batch(model.task, clips=1))
            assert is_dataclass(output)
            assert any(isinstance(getattr(output, field.name), Tensor) for field in fields(output))

    def test_the_same_seed_gives_the_same_network_and_prediction(self) -> None:
        """Weights are drawn from torch's generator, predictions from nothing."""
        for one, two in zip(self.models(3), self.models(3), strict=True):
            batch = self.batch(one.task)
            with torch.no_grad():
                first, again, other = one.predict(batch), one.predict(batch), two.predict(batch)
            assert torch.equal(first, again)
            assert torch.equal(first, other)

    def test_clips_do_not_see_each_other(self) -> None:
        """A clip is predicted alike alone and in a batch."""
        if not self.clips_are_independent:
            return
        for model in self.models():
            batch = self.batch(model.task, clips=2)
            with torch.no_grad():
                together = model.predict(batch)
                alone = torch.cat(
                    [model.predict(batch.select(slice(index, index + 1))) for index in range(2)]
                )
            assert_close(together, alone, rtol=1e-4, atol=1e-4)

    def test_frames_that_do_not_exist_are_zeros(self) -> None:
        """Whatever lies in them, also where no frame exists at all."""
        for model in self.models():
            batch = self.batch(model.task, frames=5)
            valid = torch.tensor([[True, True, True, False, False], [False] * 5])
            with torch.no_grad():
                prediction = model.predict(replace(batch, valid=valid))
            assert prediction[~valid].abs().sum() == 0
            assert prediction[valid].isfinite().all()

    def test_a_padded_clip_is_predicted_like_the_shorter_one(self) -> None:
        """Five of ten frames against a clip of five, with rubbish in the frames that do not exist."""
        if not self.padding_is_inert:
            return
        for model in self.models():
            short, rubbish = self.batch(model.task, frames=5), self.batch(model.task, frames=5, seed=1)
            assert short.masks is not None
            padded = Batch(
                images=torch.cat([short.images, rubbish.images], dim=1),
                audio=torch.cat([short.audio, rubbish.audio], dim=1),
                valid=(torch.arange(10) < 5).expand(len(short.images), 10),
                maskige=None
                if short.maskige is None or rubbish.maskige is None
                else torch.cat([short.maskige, rubbish.maskige], dim=1),
            )
            with torch.no_grad():
                assert_close(model.predict(padded)[:, :5], model.predict(short), rtol=1e-4, atol=1e-4)

    def test_any_number_of_frames(self) -> None:
        """One frame, and as many as the longest clip has."""
        for model in self.models():
            for frames in (1, 10):
                with torch.no_grad():
                    prediction = model.predict(self.batch(model.task, clips=1, frames=frames))
                assert prediction.shape[:2] == (1, frames)

    def test_a_silent_clip_has_a_loss(self) -> None:
        """Empty masks everywhere, and no annotated frame but one."""
        for model in self.models():
            batch = self.batch(model.task)
            assert batch.annotated is not None
            first = torch.zeros_like(batch.annotated)
            first[:, 0] = True
            silent = replace(batch, masks=torch.zeros_like(batch.ground_truth()), annotated=first)
            losses = model.train().losses(silent)
            assert all(term.isfinite() for term in losses.values())

    def test_losses_are_named_scalars_that_reach_every_parameter(self) -> None:
        """Save those that the method says are out of reach."""
        for model in self.models():
            losses = model.train().losses(self.batch(model.task))
            assert losses
            assert all(term.dim() == 0 and term.isfinite() for term in losses.values())
            torch.stack(list(losses.values())).sum().backward()
            missing = [
                name
                for name, parameter in model.named_parameters()
                if parameter.requires_grad and parameter.grad is None and not name.startswith(self.unused)
            ]
            assert not missing, f"no loss reaches {missing}"

    @pytest.mark.slow
    def test_a_batch_in_parts_has_the_losses_of_the_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Unequal parts, by ``loss_counts``; without batch statistics, and with the same points for all."""
        if not self.clips_are_independent:
            return
        real = torch.rand
        monkeypatch.setattr(torch, "rand", lambda *shape, **more: _alike(real, shape).to(more.get("device")))
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
                whole, found = model.losses(batch), [model.losses(part) for part in parts]
            weights = part_weights(model, list(whole), parts)
            for place, name in enumerate(whole):
                if name not in self.across_clips:
                    split = sum(
                        weight[place] * terms[name] for weight, terms in zip(weights, found, strict=True)
                    )
                    assert_close(split, whole[name], rtol=1e-4, atol=1e-5, msg=f"{model.task.name} {name}")

    @pytest.mark.slow
    def test_layout_and_recomputation_change_no_gradient(self) -> None:
        """Weights with channels innermost; activations of the backbone that are computed again."""
        plain, other = next(self.models()), next(self.models())
        system = accelerate(
            System(other, None), Recipe(epochs=1, channels_last=True, activation_checkpointing=True)
        )
        batch = self.batch(plain.task, clips=1, frames=2)
        _assert_same_gradients(plain.losses, system.losses, plain, other, batch)

    @pytest.mark.slow
    def test_compiled_it_computes_the_same(self) -> None:
        """Losses and gradients of the first task, as captured; generating code takes minutes."""
        if self._variant != self.method.variants[0]:
            return
        plain, other = next(self.models()), next(self.models())
        system = accelerate(System(other, None), Recipe(epochs=1, compile=True), self.compiler)
        batch = self.batch(plain.task, clips=1, frames=2)
        plain.train()
        _assert_same_gradients(plain.losses, system.train(), plain, other, batch)

    @pytest.mark.slow
    def test_a_few_steps_lower_the_loss(self) -> None:
        """On one batch, from the recipe's kind of optimiser."""
        for model in self.models():
            batch = self.batch(model.task, clips=1)
            model.train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
            totals = []
            for step in range(6):
                torch.manual_seed(step)
                total = torch.stack(list(model.losses(batch).values())).sum()
                optimizer.zero_grad()
                total.backward()
                optimizer.step()
                totals.append(float(total.detach()))
            assert min(totals[3:]) < totals[0], f"{model.task.name}: {totals}"

    @pytest.mark.slow
    def test_a_stopped_training_ends_with_the_same_bits(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Three steps in one go and in two, by the smoke recipe on synthetic clips of the first task."""
        monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
        task = self._tasks[0]
        write_synthetic(tmp_path / "data", get_task(task), (4, 1, 1), seed=0)
        whole, parts = (self._run(task, tmp_path / "data", tmp_path / out) for out in ("whole", "parts"))
        train(whole)
        with monkeypatch.context() as patch:
            _stop_in_step(2, patch)
            with pytest.raises(Interrupted):
                train(parts)
        train(parts)
        assert sha256_file(parts.weights_file) == sha256_file(whole.weights_file)

    def _run(self, task: str, data: Path, out: Path) -> Run:
        """Three steps of the small network by the smoke recipe."""
        values = {f"options.{name}": value for name, value in self.options.items()}
        values |= {"iterations": 3, "batch_size": 2, "image_size": self.size}
        return plan(
            Request(
                method=str(self.method.folder),
                backbone=self.backbone,
                task=task,
                variant=self._variant,
                data=data,
                preset="smoke",
                assignments=[f"{name}={value}" for name, value in values.items()],
                out=out,
                device="cpu",
                workers=0,
            )
        )

    def test_every_preset_is_a_valid_recipe(self) -> None:
        """For every task and backbone of the method; there are full and smoke."""
        assert {"full", "smoke"} <= set(presets(self.method))
        for preset in presets(self.method):
            for task in self._tasks:
                for backbone in self.method.backbones:
                    recipe = resolve(
                        self.method, get_task(task), backbone, variant=self._variant, preset=preset
                    )
                    assert recipe.source, f"{preset} of {task} with {backbone} does not say where it is from"

    def test_what_is_unknown_is_refused(self) -> None:
        """A variant, an option, a checkpoint: with an error for the user."""
        task = get_task(self._tasks[0])
        with pytest.raises(UsageError, match="no-variant"):
            self.method.build(task, self.backbone, variant="no-variant")
        with pytest.raises(UsageError, match="no_option"):
            self.method.build(task, self.backbone, variant=self._variant, no_option=1)
        with pytest.raises(UsageError):
            self.build(task).load_upstream({"no.parameter": torch.zeros(1)})

    def test_images_of_odd_size_work_or_are_refused(self) -> None:
        """With an error for the user, never with one of a layer deep inside."""
        for model in self.models():
            batch = self.batch(model.task, clips=1, frames=1)
            odd = replace(
                batch,
                images=batch.images[..., :-3],
                masks=batch.ground_truth()[..., :-3],
                maskige=None if batch.maskige is None else batch.maskige[..., :-3],
            )
            try:
                with torch.no_grad():
                    prediction = model.predict(odd)
            except AvsbError:
                continue
            assert prediction.shape[-2:] == odd.images.shape[-2:]

    def test_parameter_groups_hold_every_parameter_once(self) -> None:
        """No parameter is left out of the optimiser, none is in it twice."""
        recipe = Recipe(epochs=1, optimizer=OptimizerRecipe(backbone_lr_scale=0.1))
        for model in self.models():
            grouped = [id(parameter) for group in model.param_groups(recipe) for parameter in group.params]
            assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())

    def test_a_saved_network_predicts_the_same(self) -> None:
        """The state dict is the whole state."""
        for one, two in zip(self.models(0), self.models(1), strict=True):
            batch = self.batch(one.task, clips=1)
            two.load_state_dict(one.state_dict())
            with torch.no_grad():
                assert torch.equal(one.predict(batch), two.predict(batch))

    def test_importing_the_plugin_does_not_import_torch(self) -> None:
        """``avsb methods`` imports every plugin and must stay quick."""
        script = (
            "import sys; from pathlib import Path; from avsbench_harness.method import from_folder; "
            "from_folder(Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
        )
        command = [sys.executable, "-c", script, str(self.method.folder)]
        assert subprocess.run(command, check=False).returncode == 0


def _alike(real: Callable[..., Tensor], shape: Sequence[int]) -> Tensor:
    """Random numbers, the same for every entry of the first axis and in every call."""
    return real(*shape[1:], generator=torch.Generator().manual_seed(0)).expand(*shape)


def _assert_same_gradients(
    one: Callable[[Batch], dict[str, Tensor]],
    other: Callable[[Batch], Any],
    one_model: Model,
    other_model: Model,
    batch: Batch,
) -> None:
    """Two ways to the losses of equal networks: these, and all gradients together, are close."""
    gradients = []
    values = []
    for losses, model in ((one, one_model), (other, other_model)):
        torch.manual_seed(0)
        terms = torch.stack(list(losses(batch).values()))
        terms.sum().backward()
        values.append(terms.detach())
        learned = [parameter for parameter in model.parameters() if parameter.grad is not None]
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in learned]))  # type: ignore[union-attr]
    assert_close(values[1], values[0], rtol=1e-3, atol=1e-5)
    # Points and matches that are chosen by their losses may change with the last digits.
    assert (gradients[1] - gradients[0]).norm() < 1e-2 * gradients[0].norm()


def _stop_in_step(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask this process to stop while the trainer is in its ``number``-th step."""
    real, done = Trainer._step, 0

    def step(self: Trainer, batch: Batch, ids: list[str]) -> dict[str, Tensor]:
        nonlocal done
        done += 1
        if done == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch, ids)

    monkeypatch.setattr(Trainer, "_step", step)
