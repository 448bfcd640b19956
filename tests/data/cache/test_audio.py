from __future__ import annotations

import itertools
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from avsbench_harness.data.audio.changes import Change
from avsbench_harness.data.audio.logmel import clip_log_mel
from avsbench_harness.data.cache import audio as module
from avsbench_harness.data.cache.audio import embed_clips, log_mel_clips
from avsbench_harness.data.cache.eviction import LIMIT_VARIABLE, collections
from avsbench_harness.data.clip import Clip
from avsbench_harness.errors import AvsbError, MissingDataError
from avsbench_harness.nn.audio_encoder import CompactAudioEncoder
from avsbench_harness.tasks import AVSS, MS3, S4


class _Counting(nn.Module):
    """Mean and maximum of each example, 64 times, shifted by a weight; counts its calls."""

    def __init__(self, shift: float = 1.0) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))
        self.calls = 0

    def forward(self, log_mel: Tensor) -> Tensor:
        assert not self.training
        self.calls += 1
        facts = torch.stack([log_mel.mean((1, 2, 3)), log_mel.amax((1, 2, 3))], dim=1) + self.shift
        return facts.repeat(1, 64)


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Clip]:
    """A clip with its own noise as audio."""
    numbers = itertools.count()

    def make(seconds: float = 5, frames: int = 5) -> Clip:
        number = next(numbers)
        path = tmp_path / f"{number}.wav"
        samples = np.random.default_rng(number).uniform(-0.5, 0.5, int(seconds * 16_000))
        soundfile.write(path, samples, 16_000)
        pictures = tuple(Path(f"{index}.png") for index in range(frames))
        return Clip(f"clip-{number}", pictures, (None,) * frames, path, None, "bird", "s4")

    return make


def test_embeddings_are_the_encoders_and_computed_once(make_clip):
    clips = [make_clip() for _ in range(3)]
    torch.manual_seed(0)
    encoder = CompactAudioEncoder().eval()
    first = embed_clips(clips, S4, encoder, "f00d")
    assert list(first) == ["clip-0", "clip-1", "clip-2"]
    for clip in clips:
        with torch.inference_mode():
            expected = encoder(torch.from_numpy(clip_log_mel(clip, S4)))
        assert first[clip.id].dtype == np.float32
        np.testing.assert_array_equal(first[clip.id], expected)

    counting = _Counting()
    embed_clips(clips, S4, counting, "f00d")
    embed_clips(clips, S4, counting, "f00d")
    assert counting.calls == 3


def test_other_audio_weights_or_code_are_computed_anew(make_clip, monkeypatch):
    clip, encoder = make_clip(), _Counting()
    embed_clips([clip], S4, encoder, "f00d")
    embed_clips([clip], MS3, encoder, "f00d")  # ms3 pads short clips as s4 does
    assert encoder.calls == 1
    embed_clips([clip], S4, encoder, "beef")
    assert encoder.calls == 2
    embed_clips([clip], AVSS, encoder, "f00d")
    assert encoder.calls == 3
    monkeypatch.setattr(module, "FRONT_END_VERSION", 999)
    embed_clips([clip], S4, encoder, "f00d")
    assert encoder.calls == 4
    monkeypatch.setattr(module, "ENCODER_VERSION", 999)
    before = embed_clips([clip], S4, encoder, "f00d")[clip.id]
    assert encoder.calls == 5

    soundfile.write(clip.audio, np.zeros(80_000), 16_000)  # the same path, other audio
    after = embed_clips([clip], S4, encoder, "f00d")[clip.id]
    assert encoder.calls == 6
    assert not np.array_equal(before, after)


def test_a_clips_bits_do_not_depend_on_the_others(make_clip, cache_folder):
    clips = [make_clip() for _ in range(3)]
    torch.manual_seed(0)
    encoder = CompactAudioEncoder()
    together = dict(embed_clips(clips, S4, encoder, "f00d"))
    (cache_folder / "embeddings").rename(cache_folder / "aside")
    for clip in reversed(clips):
        alone = embed_clips([clip], S4, encoder, "f00d")
        np.testing.assert_array_equal(alone[clip.id], together[clip.id])


def test_padded_frames_are_zero(make_clip):
    five, ten, short = make_clip(5, 5), make_clip(10, 10), make_clip(3, 10)
    found = embed_clips([five, ten, short], AVSS, _Counting(), "f00d")
    assert {array.shape for array in found.values()} == {(10, 128)}
    assert found[five.id][:5].all()
    assert not found[five.id][5:].any()
    assert found[ten.id].all()
    # A short recording of ten frames is not masked: the encoder gives its bias for examples of zeros.
    np.testing.assert_array_equal(found[short.id][4:], 1.0)


def test_problems_of_recordings_are_logged_up_to_a_number(make_clip, caplog):
    clips = [make_clip(), *(make_clip(seconds=1) for _ in range(7))]
    for _ in ("computed", "cached"):
        caplog.clear()
        log_mel_clips(clips, S4)
        found = [record.message for record in caplog.records]
        assert found[:5] == [f"{clip.audio} lasts 1.0 s, but its clip 5 s." for clip in clips[1:6]]
        assert found[5:] == ["2 more recordings have such problems; `avsb data check` lists them."]


def test_problems_depend_on_the_length_of_the_clip(make_clip, caplog):
    """The same recording, of a clip of five frames and of one of ten."""
    clip = make_clip(seconds=5, frames=10)
    log_mel_clips([clip], AVSS)
    assert caplog.messages == [f"{clip.audio} lasts 5.0 s, but its clip 10 s."]
    caplog.clear()
    log_mel_clips([replace(clip, frames=clip.frames[:5])], AVSS)
    assert caplog.messages == []


def test_a_damaged_entry_is_computed_again(make_clip, cache_folder, caplog):
    clip, encoder = make_clip(), _Counting()
    good = embed_clips([clip], S4, encoder, "f00d")[clip.id]
    (file,) = (cache_folder / "embeddings").glob("*/data.bin")
    file.write_bytes(file.read_bytes()[:-50] + bytes(50))
    np.testing.assert_array_equal(embed_clips([clip], S4, encoder, "f00d")[clip.id], good)
    assert encoder.calls == 2
    assert f"The audio of clip {clip.id} in" in caplog.text
    caplog.clear()
    embed_clips([clip], S4, encoder, "f00d")
    assert encoder.calls == 2
    assert "damaged" not in caplog.text


def test_arrays_are_read_when_they_are_accessed(make_clip, cache_folder):
    clips = [make_clip() for _ in range(2)]
    found = embed_clips(clips, S4, _Counting(), "f00d")
    expected = dict(found)
    assert set(expected) == {clip.id for clip in clips}
    assert len(pickle.dumps(found)) < 2000  # a row of 128 floats a frame would be 2560 bytes a clip
    shutil.rmtree(cache_folder / "embeddings")
    for clip in clips:
        with pytest.raises(AvsbError, match=f"The audio of clip {clip.id} in .* was removed or damaged"):
            found[clip.id]
    embed_clips(clips, S4, _Counting(), "f00d")
    for clip in clips:
        np.testing.assert_array_equal(found[clip.id], expected[clip.id])


def test_the_encoders_mode_and_gradients_are_restored(make_clip):
    encoder = _Counting().train()
    found = embed_clips([make_clip()], S4, encoder, "f00d")
    assert encoder.training
    assert encoder.shift.requires_grad
    assert torch.from_numpy(found["clip-0"]).requires_grad is False


def test_progress_counts_every_clip_cached_or_not(make_clip, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 2)
    clips = [make_clip() for _ in range(5)]
    for compute in (
        lambda report: embed_clips(clips, S4, _Counting(), "f00d", progress=report),
        lambda report: log_mel_clips(clips, S4, progress=report),
    ):
        for _ in range(2):
            steps: list[int] = []
            assert len(compute(steps.append)) == 5
            assert sum(steps) == 5


def test_log_mels_are_those_of_the_front_end_and_computed_once(make_clip, monkeypatch):
    clips = [make_clip(5), make_clip(2)]
    found = log_mel_clips(clips, S4)
    for clip in clips:
        assert found[clip.id].shape == (5, 1, 96, 64)
        np.testing.assert_array_equal(found[clip.id], clip_log_mel(clip, S4))

    def recompute(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(module, "clip_log_mel", recompute)
    again = log_mel_clips(clips, S4)
    np.testing.assert_array_equal(again["clip-1"], found["clip-1"])
    with pytest.raises(AssertionError, match="computed again"):
        log_mel_clips(clips, AVSS)


def test_a_clip_without_audio_is_named(make_clip):
    good, bad = make_clip(), make_clip()
    bad.audio.unlink()
    for compute in (
        lambda: embed_clips([good, bad], S4, _Counting(), "f00d"),
        lambda: log_mel_clips([bad], S4),
    ):
        with pytest.raises(MissingDataError, match="'clip-1': there is no file"):
            compute()


def test_audio_makes_room_or_is_stored_nevertheless(make_clip, cache_folder, monkeypatch, caplog):
    embed_clips([make_clip()], S4, _Counting(), "f00d")
    monkeypatch.setenv(LIMIT_VARIABLE, str(1.01 * 5 * 96 * 64 * 4 / 1e9))
    found = log_mel_clips([make_clip()], S4)
    assert [collection.kind for collection in collections()] == ["log-mels"]  # the embeddings made room
    assert "nevertheless" not in caplog.text
    more = log_mel_clips([make_clip()], S4)
    assert "The audio is stored nevertheless." in caplog.text
    assert found["clip-1"].any()
    assert more["clip-2"].any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu(make_clip, cache_folder):
    clip = make_clip()
    torch.manual_seed(0)
    encoder = CompactAudioEncoder()
    on_cpu = embed_clips([clip], S4, encoder, "f00d")[clip.id]
    (cache_folder / "embeddings").rename(cache_folder / "aside")
    on_gpu = embed_clips([clip], S4, encoder, "f00d", device="cuda")[clip.id]
    np.testing.assert_allclose(on_gpu, on_cpu, atol=2e-3)


def test_changed_recordings_have_collections_of_their_own(make_clip: Callable[..., Clip]) -> None:
    one, two, three = make_clip(), make_clip(), make_clip()
    encoder = _Counting()
    changes = [
        None, Change("silence"), Change("white"), Change("pink"), Change("shifted", 1), Change("shifted", 2),
        Change("mixed", 5, {one.id: two}), Change("mixed", 5, {one.id: three}),
        Change("mixed", 0, {one.id: two}),
    ]  # fmt: skip
    found = [embed_clips([one], S4, encoder, "0" * 64, change=change)[one.id] for change in changes]
    assert encoder.calls == len(changes)
    assert len({values.tobytes() for values in found}) == len(changes)
    for change, values in zip(changes, found, strict=True):
        np.testing.assert_array_equal(
            embed_clips([one], S4, encoder, "0" * 64, change=change)[one.id], values
        )
        examples = clip_log_mel(one, S4, change=change)
        np.testing.assert_array_equal(values, encoder.eval()(torch.from_numpy(examples)).detach().numpy())
        np.testing.assert_array_equal(log_mel_clips([one], S4, change=change)[one.id], examples)
    assert encoder.calls == 2 * len(changes)
    copied = replace(one, id="copy")  # noise is seeded by the id
    assert not np.array_equal(
        embed_clips([copied], S4, encoder, "0" * 64, change=Change("white"))["copy"], found[2]
    )
