"""The strip below an overlay: time, labels, and the waveform with the current second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from avsbench_harness.video.frames import Pixels
from avsbench_harness.video.sound import SoundReader
from avsbench_harness.video.windows import Timeline

#: Longest part of the sound that is drawn at once, seconds.
PAGE_SECONDS = 30
#: Narrowest strip with text, pixels.
TEXT_WIDTH = 120

_GROUND, _INK, _WAVE, _PLAYED = (24, 24, 27), (244, 244, 245), (113, 113, 122), (186, 186, 194)
_CURRENT, _PLAYHEAD, _PADDED = (63, 63, 90), (253, 224, 71), (251, 146, 60)

#: A label and its colour.
Entry = tuple[str, tuple[int, int, int]]


def strip_height(width: int) -> int:
    """The height of the strip below frames of a width, pixels; even."""
    return 2 * round(min(max(40, 0.075 * width), 120) / 2)


class Strip:
    """Draws the strip of a video.

    Args:
        width: of the frames, pixels.
        timeline: the predictions.
        sound: the video's sound, which is read in order; ``None`` without.
    """

    def __init__(self, width: int, timeline: Timeline, sound: SoundReader | None) -> None:
        self.width, self.height = width, strip_height(width)
        self._timeline = timeline
        self._sound = sound
        self._page_seconds = min(Fraction(PAGE_SECONDS), timeline.seconds)
        self._text_height = round(0.45 * self.height) if width >= TEXT_WIDTH else 0
        self._page: tuple[int, NDArray[np.float64]] = (-1, np.zeros(0))
        self._drawn: tuple[object, Pixels] = (None, np.zeros((0, 0, 3), np.uint8))

    def draw(self, time: Fraction, entries: Sequence[Entry], *, padded: bool = False) -> Pixels:
        """Return the strip (h,width,3) at a time.

        Args:
            time: seconds.
            entries: labels of the prediction that is shown.
            padded: whether that prediction is from a padded window; it is marked below the waveform.
        """
        index = self._timeline.at(time)
        page = math.floor(time / self._page_seconds)
        column = self._column(time, page)
        key = (index, page, column, tuple(entries), padded)
        if self._drawn[0] != key:
            image = Image.new("RGB", (self.width, self.height), _GROUND)
            if self._text_height:
                self._draw_text(ImageDraw.Draw(image), time, entries)
            pixels = np.array(image)
            self._draw_wave(pixels[self._text_height :], index, page, column, padded)
            self._drawn = key, pixels
        return self._drawn[1]

    def _column(self, time: Fraction, page: int) -> int:
        place = (time - page * self._page_seconds) / self._page_seconds
        return min(max(0, math.floor(place * self.width)), self.width - 1)

    def _draw_wave(self, area: Pixels, index: int, page: int, column: int, padded: bool) -> None:
        height = len(area)
        low, high = (self._column(one, page) for one in self._timeline.shown(index))
        area[:, low : high + 1] = _CURRENT
        loudness = self._loudness(page)
        reach = np.round(loudness * (height / 2 - 2)).astype(int)
        rows = np.abs(np.arange(height) - (height - 1) / 2)[:, None]
        wave = rows <= reach[None] + 0.5
        played = np.arange(self.width)[None] <= column
        area[wave & played] = _PLAYED
        area[wave & ~played] = _WAVE
        if padded:
            area[-max(2, height // 12) :, low : high + 1] = _PADDED
        area[:, column : column + max(1, self.width // 400)] = _PLAYHEAD

    def _loudness(self, page: int) -> NDArray[np.float64]:
        """The peak of the sound per column, in [0, 1]; one page is kept."""
        if self._page[0] != page:
            peaks = np.zeros(self.width)
            if self._sound is not None:
                rate = self._sound.rate
                start, count = round(page * self._page_seconds * rate), round(self._page_seconds * rate)
                samples = np.abs(self._sound.read(start, count))
                edges = np.linspace(0, count, self.width, endpoint=False).astype(int)
                peaks = np.maximum.reduceat(samples, edges) if count else peaks
            self._page = page, np.sqrt(peaks)  # quiet sounds stay visible
        return self._page[1]

    @cached_property
    def _font(self) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
        return ImageFont.load_default(max(9, round(0.62 * self._text_height)))

    def _draw_text(self, draw: ImageDraw.ImageDraw, time: Fraction, entries: Sequence[Entry]) -> None:
        middle, gap = self._text_height // 2, max(3, self._text_height // 3)
        clock = f"{_clock(time)} / {_clock(self._timeline.seconds)}"
        draw.text((gap, middle), clock, fill=_INK, font=self._font, anchor="lm")
        x = 2 * gap + int(draw.textlength(clock, font=self._font)) + gap
        for place, (name, colour) in enumerate(entries):
            more = f"+{len(entries) - place}"
            wanted = int(draw.textlength(name, font=self._font)) + 3 * gap
            last = place == len(entries) - 1
            room = self.width - gap - (0 if last else int(draw.textlength(more, font=self._font)))
            if x + wanted > room:
                draw.text((x, middle), more, fill=_INK, font=self._font, anchor="lm")
                return
            side = self._text_height // 3
            draw.rectangle((x, middle - side, x + 2 * side, middle + side), fill=colour, outline=_INK)
            draw.text((x + 2 * side + gap, middle), name, fill=_INK, font=self._font, anchor="lm")
            x += 2 * side + wanted


def _clock(time: Fraction) -> str:
    minutes, seconds = divmod(math.floor(time), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
