"""Separated sources with cached, frozen and trained audio encoders, and with fewer frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from avsbench_harness.data.audio.logmel import clip_log_mel
from avsbench_harness.data.audio.separation import SEPARATORS, separate
from avsbench_harness.data.batch import Batch
from avsbench_harness.data.cache.audio import embed_clips, log_mel_clips
from avsbench_harness.data.clip import Clip
from avsbench_harness.engine.system import System
from avsbench_harness.errors import UsageError
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.nn.audio_encoder import CompactAudioEncoder
from avsbench_harness.tasks import S4


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    """One second of noise, then silence; four frames of five."""
    samples = np.zeros(5 * 16_000)
    samples[:16_000] = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    soundfile.write(tmp_path / "sound.wav", samples, 16_000)
    frames = tuple(Path(f"{index}.png") for index in range(4))
    return Clip("clip", frames, (None,) * 4, tmp_path / "sound.wav", None, "bird", "s4")


@pytest.mark.parametrize("separator", SEPARATORS)
def test_frozen_and_trained_encoders_have_the_same_sources(clip: Clip, separator: str) -> None:
    torch.manual_seed(0)
    encoder = CompactAudioEncoder().eval()
    mixture = log_mel_clips([clip], S4)["clip"]
    sources = log_mel_clips([clip], S4, separator=separator)["clip"]
    count = SEPARATORS[separator].sources
    assert mixture.shape == (5, 1, 96, 64)
    assert sources.shape == (5, count, 1, 96, 64)
    np.testing.assert_array_equal(sources, separate(clip_log_mel(clip, S4), separator))

    embedded = embed_clips([clip], S4, encoder, "0", separator=separator)["clip"]
    whole = embed_clips([clip], S4, encoder, "0")["clip"]
    assert embedded.shape == (5, count, 128)
    assert whole.shape == (5, 128)  # another entry of the cache
    assert not embedded[4].any()
    batch = Batch(torch.zeros(1, 5, 3, 2, 2), torch.from_numpy(sources)[None], torch.arange(5)[None] < 4)
    with torch.no_grad():
        audio = System(torch.nn.Identity(), encoder).embed(batch).audio
        one = encoder(torch.from_numpy(sources[2, 1:2]))[0]
    torch.testing.assert_close(audio[0], torch.from_numpy(embedded), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(audio[0, 2, 1], one, rtol=1e-4, atol=1e-5)
    assert torch.from_numpy(sources[2]).unique(dim=0).shape[0] <= count


def test_frames_of_a_recipe(tiny: str, real_s4: Path, tmp_path: Path) -> None:
    def request(frames: int) -> Request:
        return Request(
            tiny,
            "r50",
            data=real_s4,
            preset="smoke",
            assignments=(f"frames={frames}",),
            out=tmp_path,
            device="cpu",
        )

    with pytest.raises(UsageError, match="clips of s4 have 5 at most"):
        plan(request(5))
    run = plan(request(2))
    seen: list[torch.Tensor] = []
    model = run.build_model(pretrained=False)
    original = type(model).losses

    def losses(self, batch: Batch):
        seen.append(batch.valid)
        return original(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "losses", losses)
        run.method.train(run)
    assert seen
    assert all((valid == torch.tensor([True, True, False, False, False])).all() for valid in seen)
