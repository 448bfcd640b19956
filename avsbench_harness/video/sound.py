"""The sound of a video at its own rate, as the recordings of AVSBench hold it: 16-bit samples, mono."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.video.media import Damage, Media, decode, import_av, open_video, sound_stream

#: Seconds by which a time stamp may differ from the number of samples before it without being a gap.
JITTER = 0.05


class SoundReader:
    """Reads intervals of a video's sound, in order.

    Values are those of the video's sound extracted as a 16-bit wav file and read by
    :func:`.waveform.read_audio`. Where there is no sound, samples are zero. Only the sound since ``behind``
    seconds before the latest interval is in memory.

    Args:
        media: the file.
        behind: how far an interval may start before an earlier one, seconds.
        damage: counts the packets that cannot be decoded.
    """

    def __init__(self, media: Media, behind: int, damage: Damage | None = None) -> None:
        self.rate = media.sound_rate or 0
        self._behind = behind * self.rate
        self._source = read_sound(media, damage) if media.sound_rate else iter(())
        self._parts: deque[tuple[int, NDArray[np.float64]]] = deque()  # with the number of the first sample
        self._end = 0

    def read(self, start: int, count: int) -> NDArray[np.float64]:
        """Return samples (count,) in [-1, 1] from sample number ``start`` on."""
        while self._end < start + count and (part := next(self._source, None)) is not None:
            self._add(*part)
        while self._parts and self._parts[0][0] + len(self._parts[0][1]) <= start - self._behind:
            self._parts.popleft()
        samples = np.zeros(count)
        for first, part_samples in self._parts:
            low, high = max(start, first), min(start + count, first + len(part_samples))
            if low < high:
                samples[low - start : high - start] = part_samples[low - first : high - first]
        return samples

    def _add(self, first: int, samples: NDArray[np.float64]) -> None:
        if abs(first - self._end) <= JITTER * self.rate:
            first = self._end
        samples = samples[max(0, self._end - first) :]
        if len(samples):
            first = max(first, self._end)
            self._parts.append((first, samples))
            self._end = first + len(samples)


def read_sound(media: Media, damage: Damage | None = None) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield the sound of a video in order: (number of the first sample, mono samples (n,) in [-1, 1]).

    Samples before the first picture are left out.
    """
    damage = damage or Damage()
    with open_video(media.path) as container:
        stream = sound_stream(container)
        if stream is None or media.sound_rate is None:
            return
        position = 0
        for frame in _decode_16_bit(container, stream, media.sound_rate, damage):
            channels = frame.to_ndarray().astype(np.float64) / 32768.0  # (channels, n)
            samples = channels.mean(axis=0)
            if (time := media.time(frame.pts, frame.time_base or stream.time_base)) is not None:
                position = round(time * media.sound_rate)
            skipped = max(0, -position)
            if skipped < len(samples):
                yield position + skipped, samples[skipped:]
            position += len(samples)


def _decode_16_bit(container: Any, stream: Any, rate: int, damage: Damage) -> Iterator[Any]:
    """The decoded sound as planar 16-bit frames of one rate and layout."""
    av = import_av()
    layout = stream.codec_context.layout
    resamplers: dict[tuple[Any, ...], Any] = {}
    for frame in decode(container, stream, damage):
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form not in resamplers:  # a stream may change its form
            resamplers[form] = av.AudioResampler(format="s16p", layout=layout, rate=rate)
        yield from resamplers[form].resample(frame)
