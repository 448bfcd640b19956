"""The tests that every method passes; a plugin's tests inherit them, a third party's too.

    from avsbench_harness.method_suite import MethodSuite

    class TestMine(MethodSuite):
        method = Mine()
        options = {"dim": 32}  # a small network
        backbone = "resnet10t"

pytest collects the ``test_`` methods of the subclass. Every test runs for every task of the method.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.testing import assert_close

from avsbench_harness.data.batch import Batch
from avsbench_harness.method import Method
from avsbench_harness.nn.model import Model
from avsbench_harness.tasks import Task, get_task


class MethodSuite:
    """What a plugin promises, as tests.

    Attributes:
        method: the plugin.
        options: build options that make the network small.
        backbone: a small one.
        size: side of the images, pixels.
        frames: of a clip, where a test does not say otherwise; ``None``: of the task's longest clip.
        maskige: whether batches carry maskiges.
        clips_are_independent: whether in evaluation mode a clip's prediction does not depend on the others.
        unused: parameters (prefixes of their names) that no loss reaches, each for a documented reason.
    """

    method: ClassVar[Method]
    options: ClassVar[dict[str, Any]] = {}
    backbone: ClassVar[str] = "resnet10t"
    size: ClassVar[int] = 64
    frames: ClassVar[int | None] = None
    maskige: ClassVar[bool] = False
    clips_are_independent: ClassVar[bool] = True
    unused: ClassVar[tuple[str, ...]] = ()

    def models(self, seed: int = 0) -> Iterator[Model]:
        """A network for each task, in evaluation mode, the same for the same seed."""
        for name in self.method.tasks:
            torch.manual_seed(seed)
            yield self.build(get_task(name)).eval()

    def build(self, task: Task) -> Model:
        """The small network."""
        return self.method.build(task, self.backbone, variant=self.method.variants[0], **self.options)

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
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            missing = [
                name
                for name, parameter in model.named_parameters()
                if parameter.requires_grad and parameter.grad is None and not name.startswith(self.unused)
            ]
            assert not missing, f"no loss reaches {missing}"

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
                total.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                totals.append(float(total.detach()))
            assert min(totals[3:]) < totals[0], f"{model.task.name}: {totals}"

    def test_parameter_groups_hold_every_parameter_once(self) -> None:
        """No parameter is left out of the optimiser, none is in it twice."""

        class _Recipe:
            class optimizer:
                backbone_lr_scale = 0.1

        for model in self.models():
            grouped = [id(parameter) for group in model.param_groups(_Recipe) for parameter in group.params]
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
