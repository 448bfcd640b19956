"""Tests of the outputs and predictions of a method's networks."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from avsbench_harness.data.batch import Batch
from avsbench_harness.engine.system import System
from avsbench_harness.errors import AvsbError
from avsbench_harness.testing.method_suite.base import SuiteBase


class OutputTests(SuiteBase):
    """Shapes, determinism, independence of clips and padding."""

    def test_predictions_have_the_documented_shape_and_range(self) -> None:
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

    def test_the_engine_accepts_predictions(self) -> None:
        """Probabilities are in [0, 1] for images with a large contrast too, not only those of this seed."""
        for model in self.models():
            System(model, None).check_predict(self.batch(model.task, clips=1, frames=2))

    def test_forward_returns_a_dataclass_of_tensors(self) -> None:
        """The raw outputs are documented data."""
        for model in self.models():
            with torch.no_grad():
                output = model(self.batch(model.task, clips=1))
            assert is_dataclass(output)
            assert any(isinstance(getattr(output, field.name), Tensor) for field in fields(output))

    def test_the_same_seed_gives_the_same_network_and_prediction(self) -> None:
        """Weights are drawn from torch's global generator; predictions are deterministic."""
        for one, two in zip(self.models(3), self.models(3), strict=True):
            batch = self.batch(one.task)
            with torch.no_grad():
                first, again, other = one.predict(batch), one.predict(batch), two.predict(batch)
            assert torch.equal(first, again)
            assert torch.equal(first, other)

    def test_predictions_are_made_in_evaluation_mode(self) -> None:
        """In training mode too: two predictions are those of evaluation mode, and the state is unchanged."""
        for model in self.models():
            batch = self.batch(model.task)
            with torch.no_grad():
                wanted = model.predict(batch)
                model.train()
                before = {name: value.clone() for name, value in model.state_dict().items()}
                assert torch.equal(model.predict(batch), wanted)
                assert torch.equal(model.predict(batch), wanted)
            assert all(part.training for part in model.modules())
            assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def test_predictions_of_clips_are_independent(self) -> None:
        """The prediction of a clip is the same alone and in a batch."""
        if not self.clips_are_independent:
            pytest.skip("clips_are_independent is False: the method documents that clips interact")
        for model in self.models():
            batch = self.batch(model.task, clips=2)
            with torch.no_grad():
                together = model.predict(batch)
                alone = torch.cat(
                    [model.predict(batch.select(slice(index, index + 1))) for index in range(2)]
                )
            assert_close(together, alone, rtol=1e-4, atol=1e-4)

    def test_padded_frames_are_zero(self) -> None:
        """Whatever their input is, also in a clip without valid frames."""
        for model in self.models():
            batch = self.batch(model.task, frames=5)
            valid = torch.tensor([[True, True, True, False, False], [False] * 5])
            with torch.no_grad():
                prediction = model.predict(replace(batch, valid=valid))
            assert prediction[~valid].abs().sum() == 0
            assert prediction[valid].isfinite().all()

    def test_padding_does_not_change_the_prediction(self) -> None:
        """A clip of five frames, alone and padded to ten with random values."""
        if not self.padding_is_inert:
            pytest.skip("padding_is_inert is False: the method documents that padding changes predictions")
        for model in self.models():
            short, noise = self.batch(model.task, frames=5), self.batch(model.task, frames=5, seed=1)
            assert short.masks is not None
            padded = Batch(
                images=torch.cat([short.images, noise.images], dim=1),
                audio=torch.cat([short.audio, noise.audio], dim=1),
                valid=(torch.arange(10) < 5).expand(len(short.images), 10),
                maskige=None
                if short.maskige is None or noise.maskige is None
                else torch.cat([short.maskige, noise.maskige], dim=1),
            )
            with torch.no_grad():
                assert_close(model.predict(padded)[:, :5], model.predict(short), rtol=1e-4, atol=1e-4)

    def test_cached_maps_of_the_backbone_replace_the_images(self) -> None:
        """A batch with the backbone's maps, and zeros for images, has the prediction of the images."""
        if not self.takes_features:
            pytest.skip("takes_features is False: the backbone is computed in every step")
        for model in self.models():
            batch = self.batch(model.task, frames=5)
            valid = torch.tensor([[True, True, True, False, False], [True] * 5])
            batch = replace(batch, valid=valid)
            inputs = {"images": batch.images, "maskige": batch.maskige}
            given = {source: images for source, images in inputs.items() if images is not None}
            blank = replace(
                batch,
                images=torch.zeros_like(batch.images),
                maskige=None if batch.maskige is None else torch.zeros_like(batch.maskige),
            )
            with torch.no_grad():
                maps = {
                    source: model.encode(images.flatten(0, 1), source) for source, images in given.items()
                }
                features = {
                    source: [level.unflatten(0, valid.shape) for level in levels]
                    for source, levels in maps.items()
                }
                wanted, ignored = model.predict(batch), model.predict(blank)
                found = model.predict(replace(blank, features=features))
            assert_close(found, wanted, rtol=1e-4, atol=1e-4)
            assert not torch.equal(ignored, wanted)

    def test_what_several_recordings_share_does_not_change_the_predictions(self) -> None:
        """Bitwise those of batches of their own, and the backbone is computed once per clip and input."""
        for model in self.models():
            batch, other = self.batch(model.task, frames=5), self.batch(model.task, frames=5, seed=1)
            valid = torch.tensor([[True, True, True, False, False], [True] * 5])
            plain = replace(batch, valid=valid)
            sounds = [batch.audio, other.audio, torch.zeros_like(batch.audio), batch.audio]
            with torch.no_grad(), patch.object(model, "encode", wraps=model.encode) as encode:
                wanted = [model.predict(plain.with_audio(audio)) for audio in sounds]
                encode.reset_mock()
                shared = plain.sharing()
                found = [model.predict(shared.with_audio(audio)) for audio in sounds]
            for one, two in zip(found, wanted, strict=True):
                assert torch.equal(one, two)
            if self.takes_features:  # a method may compute clip by clip
                inputs = sum(part is not None for part in (batch.images, batch.maskige))
                assert encode.call_count <= inputs * len(valid)

    def test_any_number_of_frames(self) -> None:
        """One frame, and the number of frames of the longest clip."""
        for model in self.models():
            for frames in (1, 10):
                with torch.no_grad():
                    prediction = model.predict(self.batch(model.task, clips=1, frames=frames))
                assert prediction.shape[:2] == (1, frames)

    def test_images_of_odd_size_work_or_are_refused(self) -> None:
        """If refused, with an ``AvsbError`` instead of an error of a layer."""
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

    def test_the_state_dict_is_the_complete_state(self) -> None:
        """A network with another's state dict has the same predictions."""
        for one, two in zip(self.models(0), self.models(1), strict=True):
            batch = self.batch(one.task, clips=1)
            two.load_state_dict(one.state_dict())
            with torch.no_grad():
                assert torch.equal(one.predict(batch), two.predict(batch))
