"""Prediction of frames and sound from anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avsbench_harness.data.audio.waveform import read_audio
from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.images import read_frame
from avsbench_harness.data.pixels import load_image
from avsbench_harness.engine.predict import predict
from avsbench_harness.engine.predictor import Predictor
from avsbench_harness.errors import UsageError
from avsbench_harness.launch.load_model import load
from avsbench_harness.submission import read_submission
from avsbench_harness.submission.codes import encode
from avsbench_harness.tasks import S4
from avsbench_harness.testing.videos import LOSSLESS, pattern, write_test_video


@pytest.fixture
def predictor(untrained: Callable[[str], Path], tiny: str) -> Callable[..., Predictor]:
    def make(task: str = "s4", **recipe: object) -> Predictor:
        found = load(untrained(task), method=tiny, device="cpu")
        spec = found.run.spec
        run = replace(
            found.run, spec=spec.model_copy(update={"recipe": spec.recipe.model_copy(update=recipe)})
        )
        return Predictor(run, found._system.state_dict(), found.weights)

    return make


@pytest.mark.parametrize("fit", ["squeeze", "pad"])
def test_scores_are_those_of_the_clips_in_a_data_set(
    predictor, real_s4: Path, tmp_path: Path, fit: str
) -> None:
    """Frames and recordings read by hand give the submission of the data set, code by code."""
    found = predictor(fit=fit)
    run = replace(found.run, dataset=open_dataset(real_s4, S4), out=tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / "weights.safetensors").write_bytes((found.run.folder / "weights.safetensors").read_bytes())
    with read_submission(predict(run, "test")) as submission:
        for clip in run.dataset.clips("test"):
            frames = np.stack([np.asarray(load_image(path).convert("RGB")) for path in clip.frames])
            assert clip.audio is not None
            samples, rate = read_audio(clip.audio)
            probabilities = found.scores(frames, samples, rate, side=224)
            assert np.array_equal(submission.read(clip.id), encode(probabilities))


def test_masks_have_the_size_of_the_frames(predictor) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 50, 70, 3), np.uint8)
    masks = predictor().predict(frames, np.zeros(48_000, np.int16))
    assert masks.shape == (3, 50, 70)
    assert masks.dtype == np.uint8
    assert set(np.unique(masks)) <= {0, 1}
    labels = predictor("avss").predict(frames)
    assert labels.shape == (3, 50, 70)
    assert labels.max() <= 70
    assert len(np.unique(labels)) > 1


def test_the_threshold_is_applied_to_the_scores(predictor) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), np.uint8)
    found = predictor()
    scores = found.scores(frames)
    low, high = np.quantile(scores, [0.2, 0.8])
    for threshold in (float(low), 0.5, float(high)):
        assert np.array_equal(found.predict(frames, threshold=threshold), scores > threshold)


def test_longer_input_is_cut_into_clips_of_the_task(predictor) -> None:
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (7, 32, 32, 3), np.uint8)
    sound = rng.uniform(-1, 1, 7 * 16_000)
    found = predictor()
    whole = found.scores(frames, sound)
    parts = [found.scores(frames[:5], sound[: 5 * 16_000]), found.scores(frames[5:], sound[5 * 16_000 :])]
    assert np.array_equal(whole, np.concatenate(parts))


def test_forms_of_sound_are_equal(predictor) -> None:
    frames = np.random.default_rng(2).integers(0, 256, (2, 32, 32, 3), np.uint8)
    pcm = np.random.default_rng(3).integers(-9000, 9000, 32_000).astype(np.int16)
    found = predictor()
    scores = found.scores(frames, pcm)
    assert np.array_equal(found.scores(frames, pcm / 32768), scores)
    assert np.array_equal(found.scores(frames, np.stack([pcm, pcm], axis=1)), scores)
    assert not np.array_equal(found.scores(frames), scores)  # silence


def test_large_frames_get_enlarged_labels(predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    found = predictor("avss")
    frames = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    whole = found.predict(frames)
    monkeypatch.setattr("avsbench_harness.engine.predictor.MAX_SCORED_PIXELS", 32 * 32)
    small = found.predict(frames)
    assert small.shape == whole.shape
    assert np.array_equal(small[:, ::2, ::2], small[:, 1::2, 1::2])
    assert (small == whole).mean() > 0.7


def test_opening_a_model_leaves_the_random_state_alone(predictor) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    predictor()
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("frames", "sound", "message"),
    [
        (np.zeros((2, 8, 8), np.uint8), None, "frames must be"),
        (np.zeros((2, 8, 8, 3), np.float32), None, "frames must be"),
        (np.zeros((0, 8, 8, 3), np.uint8), None, "frames must be"),
        (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((2, 2, 2)), "waveform must be"),
        (np.zeros((1, 8, 8, 3), np.uint8), np.full(16_000, np.nan), "NaN"),
    ],
)
def test_wrong_input_is_one_sentence(predictor, frames, sound, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        predictor().predict(frames, sound)


def test_frames_are_fitted_as_files_are(predictor, tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(predictor().prepare(pixels).image, read_frame(tmp_path / "a.png", 32))


def test_maskiges_are_made_for_the_frames(predictor) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    found = predictor(maskige="published")
    prepared = found.prepare(pixels)
    assert prepared.maskige is not None
    assert prepared.maskige.shape == (32, 32, 3)
    assert "felzenszwalb" in found.remark
    assert predictor(maskige="felzenszwalb").remark == ""
    assert predictor().prepare(pixels).maskige is None
    assert found.predict(pixels[None]).shape == (1, 40, 40)


@pytest.mark.parametrize("phase", [0, 1])
def test_predictions_of_a_video_are_those_of_its_frames_and_sound(
    predictor, tmp_path: Path, phase: int
) -> None:
    """Two predictions per second: the second sequence of windows begins half a second later."""
    sound = np.random.default_rng(4).integers(-9000, 9000, 7 * 16_000).astype(np.int16)
    video = write_test_video(
        tmp_path / "v.mkv", seconds=7, rate=4, size=(32, 32), codecs=LOSSLESS, sound=sound
    )
    found = predictor()
    masks = {one.index: one.mask for one in found.predict_video(video, fps=2)}
    picture, seconds = pattern((32, 32)), 7 - phase
    frames = np.stack([picture(4 * second + 2 + 2 * phase) for second in range(seconds)])
    start = 8000 * phase
    expected = found.predict(frames, sound[start : start + seconds * 16_000])
    assert sorted(masks) == list(range(13))
    for second in range(seconds):
        assert np.array_equal(masks[2 * second + phase], expected[second])
