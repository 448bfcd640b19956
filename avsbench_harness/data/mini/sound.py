"""The sound of a clip: a mixture of recordings at stated levels, and the seconds in which each is audible."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.data.audio.waveform import read_audio, to_16k
from avsbench_harness.data.avsbench.writer import RATE
from avsbench_harness.data.mini.media import Media, Recording
from avsbench_harness.data.mini.scene import Style
from avsbench_harness.data.synth.draws import Draws, Floats
from avsbench_harness.data.synth.sounds import gate
from avsbench_harness.tasks import Split

Flags = NDArray[np.bool_]

#: A second of a recording is audible if its level is at most this far below that of its loudest second,
#: tenths of dB.
AUDIBLE = 200
#: Level of the loudest second of a recording in the mixture, tenths of dBFS, from the lowest to the highest.
LEVELS = (-240, -180)
#: Seconds of a recording that are used.
SECONDS = 5

# Gains of -60.0 to 60.0 dB in tenths, rounded so that the last bit of the power function does not matter.
_GAINS = {d: round(4096 * 10 ** (d / 200)) / 4096 for d in range(-600, 601)}
# Draws of a clip's sound before one more second may be silent.
_DRAWS = 32
# Peak of the mixture, 16-bit samples.
_PEAK = 32000


@dataclass(frozen=True)
class Voice:
    """The recordings of one sounding object.

    Attributes:
        object: index of the object in the scene.
        recordings: one recording for every five seconds.
        level: level of the loudest second of each in the mixture, tenths of dBFS.
        playing: (T,) whether the object sounds in a second.
    """

    object: int
    recordings: tuple[Recording, ...]
    level: int
    playing: Flags

    @property
    def audible(self) -> Flags:
        """(T,) whether it plays and the recording is audible in that second."""
        heard = [
            level >= recording.loudest - AUDIBLE
            for recording in self.recordings
            for level in recording.levels[:SECONDS]
        ]
        return self.playing & np.array(heard, dtype=np.bool_)

    def signal(self) -> Floats:
        """Return the samples (n,) at full scale 32768."""
        parts = [
            samples_of(recording.path) * _GAINS[max(-600, min(self.level - recording.loudest, 600))]
            for recording in self.recordings
        ]
        return np.concatenate(parts) * gate(self.playing)


def draw_voices(
    style: Style, kinds: list[str], named: list[bool], media: Media, split: Split, draws: Draws
) -> list[Voice]:
    """Draw the sounding objects of a clip, independently of its picture.

    Without ``changing`` one object with a class sounds all the time. Else one or two of them, and every
    object without a class with probability 1/2, sound in changing seconds. Recordings and seconds are drawn
    again until each of the objects is audible in some second, the set of audible objects changes, and at most
    every fifth second is silent; objects are not drawn again, so that no kind sounds more often than others.
    More seconds may be silent if that is not found in 32 draws, as short sounds need it.

    Args:
        style: the style of the clip.
        kinds: the kinds of the visible objects.
        named: whether an object can be in the mask.
        media: the media.
        split: the split.
        draws: the random stream.
    """
    candidates = [index for index, can in enumerate(named) if can]
    if style.changing:
        count = min(draws.integer(1, 2), len(candidates))
        chosen = [candidates[k] for k in draws.sample(count, len(candidates))]
        chosen += [index for index, can in enumerate(named) if not can and draws.chance(1, 2)]
    else:
        chosen = [candidates[draws.integer(0, len(candidates) - 1)]]
    for attempt in itertools.count():
        voices = [_voice(style, index, kinds[index], media, split, draws) for index in chosen]
        audible = np.stack([voice.audible for voice in voices])
        silent = int((~audible.any(axis=0)).sum())
        if not style.changing or (
            audible.any(axis=1).all()
            and len(np.unique(audible, axis=1).T) > 1
            and silent <= style.seconds // SECONDS + attempt // _DRAWS
        ):
            return voices
    raise AssertionError  # itertools.count does not end


def mix(voices: list[Voice]) -> NDArray[np.int16]:
    """Return the mixture (n,1) of 16-bit samples, attenuated if its peak exceeds 32,000."""
    total = voices[0].signal()
    for voice in voices[1:]:
        total = total + voice.signal()
    peak = float(np.abs(total).max())
    if peak > _PEAK:
        total = total * (_PEAK / peak)
    return np.rint(total).astype(np.int16)[:, None]


def samples_of(path: Path) -> Floats:
    """Return the first five seconds (5 * RATE,) of a recording, with zeros at the end if it is shorter.

    The values are those of 16-bit samples.

    Raises:
        UsageError: the file cannot be read.
    """
    return _samples(path).astype(np.float64)


@lru_cache(maxsize=512)  # all recordings of AVS-Mini, 127 MB
def _samples(path: Path) -> NDArray[np.int32]:
    """The samples of a recording; a resampled one may exceed 16 bits."""
    samples, rate = read_audio(path)
    if rate != RATE:
        samples = to_16k(samples, rate)
    whole = np.zeros(SECONDS * RATE, dtype=np.int32)
    used = np.rint(samples[: len(whole)] * 32768)
    whole[: len(used)] = used
    return whole


def _voice(style: Style, index: int, kind: str, media: Media, split: Split, draws: Draws) -> Voice:
    recordings = media.recordings_of(split, kind)
    count = style.seconds // SECONDS
    chosen = tuple(recordings[draws.integer(0, len(recordings) - 1)] for _ in range(count))
    playing = np.ones(style.seconds, dtype=np.bool_)
    if style.changing:
        playing[0] = draws.chance(2, 3)
        for second in range(1, style.seconds):
            playing[second] = playing[second - 1] ^ draws.chance(1, 3)
    return Voice(index, chosen, draws.integer(*LEVELS), playing)
