"""Training clips with negative audio have the front end's output, and empty masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avsbench_harness.data.audio.logmel import clip_log_mel, log_mel_examples
from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.mini import write_mini
from avsbench_harness.engine.negative_audio import negative_audio
from avsbench_harness.engine.train import train, training_set
from avsbench_harness.errors import UsageError
from avsbench_harness.nn.audio_encoder import build_audio_encoder
from avsbench_harness.tasks import MS3, S4
from avsbench_harness.weights.tensors import load_tensors

SILENT = np.log(np.float32(0.01))


def test_silent_clips_have_empty_masks(planned, tmp_path: Path) -> None:
    plain = training_set(planned(tmp_path))
    changed = training_set(planned(tmp_path, "augment.negative_audio={silence: 0.5}"))
    seen = set()
    for index in range(len(plain)):
        for epoch in range(6):
            one, two = plain[index, epoch], changed[index, epoch]
            assert torch.equal(one.images, two.images)  # the other augmentation is the same
            assert torch.equal(one.annotated, two.annotated)
            negative = not torch.equal(one.audio, two.audio)
            seen.add(negative)
            if negative:
                assert (two.audio == torch.tensor(SILENT)).all()
                assert not two.masks.any()
            else:
                assert torch.equal(one.masks, two.masks)
            assert torch.equal(changed[index, epoch].audio, two.audio)
    assert seen == {True, False}


def test_embeddings_are_those_of_the_encoder_on_the_changed_recording(planned, tmp_path: Path) -> None:
    frozen = ("audio.encoder=compact-esc10", "audio.freeze=true")
    run = planned(tmp_path, *frozen, "augment.negative_audio={silence: 0.4, swapped: 0.6}")
    encoder = build_audio_encoder("compact-esc10", run.weights["audio"]).eval()

    def embedded(examples: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return encoder(torch.from_numpy(examples)).numpy()

    clips = run.dataset.clips("train")
    expected = {clip.id: embedded(clip_log_mel(clip, S4)) for clip in clips}
    silence = embedded(log_mel_examples(np.zeros(80_000 + 400), 5))
    dataset = training_set(run)
    found = set()
    for index, clip in enumerate(clips):
        for epoch in range(8):
            sample = dataset[index, epoch]
            assert not sample.masks.any()
            audio = sample.audio.numpy()
            if np.array_equal(audio, silence):
                found.add("silence")
                continue
            (source,) = [other for other in clips if np.array_equal(audio, expected[other.id])]
            assert source.category != clip.category
            found.add("swapped")
    assert found == {"silence", "swapped"}


def test_a_training_with_negatives_is_reproducible(planned, tmp_path: Path) -> None:
    options = ("epochs=2", "augment.negative_audio={silence: 0.2, noise: 0.2, swapped: 0.2}")
    weights = []
    for name in ("one", "two"):
        run = planned(tmp_path / name, *options)
        train(run)
        weights.append(load_tensors(run.weights_file))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_swaps_need_known_kinds(planned, tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_mini(root, [MS3], (4, 1, 1), seed=5, jobs=1)
    run = planned(tmp_path, "augment.negative_audio={swapped: 0.5}", data=root, task="ms3")
    clips = run.dataset.clips("train")
    assert negative_audio(run, clips, {}) is not None
    unknown = replace(run, dataset=replace(open_dataset(root, MS3), composed=None))
    with pytest.raises(UsageError, match="the kinds of sounds of ms3 are not published"):
        negative_audio(unknown, clips, {})
