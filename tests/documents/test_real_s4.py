"""Properties of tests/fixtures/real_s4 that its README states and other tests rely on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from avsbench_harness.data.avsbench.check import check_dataset
from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.tasks import S4, SPLITS

DATA = Path(__file__).parents[1] / "fixtures"
ROOT = DATA / "real_s4"
RECORDINGS = (
    "sorohanro_-_solo-trumpet-06",
    "456440__inspectorj__bird-whistling-robin-single-13",
)


def test_readers_find_every_file() -> None:
    faults = check_dataset(ROOT, [S4]).faults
    # Only the number of clips differs from the official dataset.
    assert {fault.kind for fault in faults} == {"count"}
    dataset = open_dataset(ROOT, S4)
    assert not dataset.synthetic
    assert dataset.name == "custom"
    assert dataset.counts() == {"train": 4, "val": 2, "test": 3}


def test_masks_exist_and_one_is_empty() -> None:
    empty = []
    for split in SPLITS:
        for clip in open_dataset(ROOT, S4).clips(split):
            for k, path in enumerate(clip.masks, start=1):
                if path is None:
                    assert split == "train"
                    continue
                mask = np.asarray(Image.open(path))
                assert mask.shape == (224, 224)
                assert set(np.unique(mask)) <= {0, 255}
                if not mask.any():
                    empty.append((clip.id, k))
    assert empty == [("dog_03", 4)]


def test_audio_is_silent_only_where_the_mask_is_empty() -> None:
    suffixes = set()
    for split in SPLITS:
        for clip in open_dataset(ROOT, S4).clips(split):
            assert clip.audio is not None
            suffixes.add(clip.audio.suffix)
            samples, rate = soundfile.read(clip.audio, always_2d=True)
            short = clip.id == "dog_01"
            assert rate == 16000
            assert samples.shape == ((43177, 2) if short else (80000, 1))
            assert abs(samples.mean()) < 0.01
            for second in range(len(samples) // rate):
                loudness = samples[second * rate : (second + 1) * rate].std()
                if (clip.id, second) == ("dog_03", 3):
                    assert loudness == 0
                else:
                    assert loudness > 0.005
    assert suffixes == {".wav", ".flac", ".ogg"}


@pytest.mark.parametrize("stem", RECORDINGS)
def test_recordings_have_their_attribution(stem: str) -> None:
    assert (DATA / "audio" / f"{stem}.hq.ogg").is_file()
    assert "creativecommons.org/licenses/by/3.0" in (DATA / "audio" / f"{stem}.txt").read_text()


def test_licences_are_named() -> None:
    readme = (ROOT / "README.md").read_text()
    for word in (
        "Mihai Sorohan",
        "InspectorJ",
        "LibriSpeech",
        "NPS - Chris Gabriele",
        "Perazzi",
        "CC BY 4.0",
    ):
        assert word in readme
    assert "Federico Perazzi" in (ROOT / "LICENSE.DAVIS-BSD.txt").read_text()
