"""Geometry of the charts of one run; the template ``charts.html`` writes them as SVG.

Coordinates are in units of the chart's view box, rounded to one decimal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

#: Size of a chart and its margins, in units of the view box.
WIDTH, HEIGHT = 460.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 12.0, 38.0

#: Most points of a curve; longer curves are averaged over groups of neighbours.
MAX_POINTS = 300


@dataclass(frozen=True)
class Axis:
    """A linear axis.

    Attributes:
        label: text of the axis.
        low, high: values at its ends.
        ticks: (position, text).
    """

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    start: float
    end: float

    def at(self, value: float) -> float:
        """The position of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


@dataclass(frozen=True)
class Line:
    """A curve with a class of the style sheet.

    Attributes:
        path: the ``d`` of an SVG path, empty without points.
        marks: (x, y, text) of points with a text of their own.
    """

    name: str
    style: str
    path: str
    marks: tuple[tuple[float, float, str], ...] = ()


@dataclass(frozen=True)
class Bar:
    """A rectangle of a histogram, with its text."""

    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        caption: shown below it.
        summary: its content in words, for readers who do not see it.
    """

    caption: str
    summary: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()
    width: float = field(default=WIDTH)
    height: float = field(default=HEIGHT)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values from ``low`` to ``high``, about ``count`` of them, in steps of 1, 2 or 5 times 10^n."""
    span = max(high - low, 1e-9)
    raw = span / max(count, 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def axis(label: str, low: float, high: float, *, vertical: bool, count: int = 5) -> Axis:
    """An axis with ticks at round values."""
    if not high > low:
        high = low + 1
    start, end = (HEIGHT - BOTTOM, TOP) if vertical else (LEFT, WIDTH - RIGHT)
    bare = Axis(label, low, high, (), start, end)
    ticks = tuple((bare.at(value), _tick_text(value)) for value in nice_ticks(low, high, count))
    return Axis(label, low, high, ticks, start, end)


def _tick_text(value: float) -> str:
    """A value in at most five characters, small ones with an exponent."""
    if value and abs(value) < 0.01:
        digits, _, exponent = f"{value:.1e}".partition("e")
        return f"{float(digits):g}e{int(exponent)}"
    return f"{value:g}"


def line(name: str, style: str, x: Axis, y: Axis, points: Sequence[tuple[float, float]]) -> Line:
    """A curve through points; values outside the axes are drawn at their ends."""
    drawn = [(x.at(a), y.at(min(max(b, y.low), y.high))) for a, b in points]
    path = "".join(f"{'L' if index else 'M'}{a:g} {b:g}" for index, (a, b) in enumerate(drawn))
    return Line(name, style, path)


def thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most :data:`MAX_POINTS` points: means of groups of neighbours."""
    if len(points) <= MAX_POINTS:
        return list(points)
    groups = np.array_split(np.asarray(points, np.float64), MAX_POINTS)
    return [(float(group[:, 0].mean()), float(group[:, 1].mean())) for group in groups]


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Centred moving average; shorter at the ends."""
    array = np.asarray(values, np.float64)
    sums = np.concatenate([[0.0], np.cumsum(array)])
    half = window // 2
    starts = np.maximum(np.arange(len(array)) - half, 0)
    ends = np.minimum(np.arange(len(array)) + half + 1, len(array))
    return [float(value) for value in (sums[ends] - sums[starts]) / (ends - starts)]


def histogram(values: NDArray[np.float64], metric: str) -> Chart:
    """Number of clips by score in steps of 5 %, with the median.

    Args:
        values: (N,) scores in [0, 1]; NaN for clips without a score.
        metric: name of the metric.
    """
    known = values[np.isfinite(values)]
    counts, edges = np.histogram(np.clip(known, 0, 1), bins=20, range=(0, 1))
    x = axis(f"{metric} of a clip (%)", 0, 100, vertical=False)
    y = axis("clips", 0, max(1.0, float(counts.max(initial=0)) * 1.05), vertical=True)
    bars = tuple(
        Bar(
            x=x.at(100 * float(low)) + 0.5,
            y=y.at(float(count)),
            width=round(x.at(100 * float(high)) - x.at(100 * float(low)) - 1, 1),
            height=round(y.at(0) - y.at(float(count)), 1),
            text=f"{count} clips from {100 * low:.0f} to {100 * high:.0f} %",
        )
        for count, low, high in zip(counts, edges, edges[1:], strict=False)
        if count
    )
    median = 100 * float(np.median(known)) if known.size else 0.0
    lines = (line("median", "dashed", x, y, [(median, y.low), (median, y.high)]),) if known.size else ()
    summary = f"Histogram of {metric} over {known.size} clips; the median is {median:.1f} %."
    return Chart(f"{metric} per clip; dashed: median {median:.1f} %", summary, x, y, lines, bars)


def threshold_chart(curve: NDArray[np.float64], per_clip: float | None, half: float | None) -> Chart:
    """F over the thresholds: the mean curve with its best threshold, and F with the best of every clip.

    Args:
        curve: (255,) mean F over clips at each threshold, in [0, 1].
        per_clip: F, in [0, 1]: the mean over clips of every clip's best value.
        half: F_half, in [0, 1].
    """
    thresholds = np.linspace(0, 1, len(curve))
    x = axis("threshold", 0, 1, vertical=False)
    y = axis("F (%)", 0, 100, vertical=True)
    best = int(np.nanargmax(curve))
    points = list(zip(map(float, thresholds), (100 * curve).tolist(), strict=True))
    mean = line("one threshold for the split", "first", x, y, points)
    split = 100 * float(curve[best])
    marks = [(x.at(float(thresholds[best])), y.at(split), f"F_split {split:.1f} at {thresholds[best]:.2f}")]
    if half is not None:
        marks.append((x.at(0.5), y.at(100 * half), f"F_half {100 * half:.1f} at 0.5"))
    lines = [Line(mean.name, mean.style, mean.path, tuple(marks))]
    if per_clip is not None:
        value = 100 * per_clip
        lines.append(
            line("best threshold of every clip (F)", "second dashed", x, y, [(0, value), (1, value)])
        )
    told = "" if per_clip is None else f" With the best threshold of every clip F is {100 * per_clip:.1f} %."
    summary = f"F over thresholds; best at {thresholds[best]:.2f} with {split:.1f} %.{told}"
    return Chart("F over the 255 thresholds", summary, x, y, tuple(lines))


def training_charts(
    losses: Sequence[tuple[float, float]],
    validations: Sequence[tuple[float, float]],
    rates: Sequence[tuple[float, float]],
    metric: str,
    selected: int | None,
) -> list[Chart]:
    """Charts of a training: loss with its moving average, validation metric, and learning rate.

    Args:
        losses: (step, loss).
        validations: (step, metric in [0, 1]).
        rates: (step, learning rate); a multiple of the base rate.
        metric: name of the validation metric.
        selected: step of the selected weights.
    """
    end = max([1.0, *(step for step, _ in (*losses, *validations, *rates))])
    charts = []
    if losses:
        charts.append(_loss_chart(losses, end))
    if validations:
        charts.append(_validation_chart(validations, end, metric, selected))
    if rates:
        top = max(rate for _, rate in rates)
        x, y = axis("step", 0, end, vertical=False), axis("learning rate", 0, top * 1.05, vertical=True)
        lines = (line("learning rate", "first", x, y, thin(rates)),)
        charts.append(Chart("Learning rate of the schedule", f"Learning rate, at most {top:g}.", x, y, lines))
    return charts


def _loss_chart(losses: Sequence[tuple[float, float]], end: float) -> Chart:
    values = [loss for _, loss in losses]
    window = max(3, len(values) // 40)
    top = float(np.quantile(values, 0.995)) * 1.05
    x, y = axis("step", 0, end, vertical=False), axis("loss", min(0.0, *values), top, vertical=True)
    average = list(zip((step for step, _ in losses), smooth(values, window), strict=True))
    lines = (
        line("loss", "faint", x, y, thin(losses)),
        line(f"mean of {window} steps", "first", x, y, thin(average)),
    )
    summary = f"Loss from {values[0]:.3g} to {average[-1][1]:.3g} after {end:.0f} steps."
    return Chart(f"Loss and its mean over {window} steps", summary, x, y, lines)


def _validation_chart(
    validations: Sequence[tuple[float, float]], end: float, metric: str, selected: int | None
) -> Chart:
    x, y = axis("step", 0, end, vertical=False), axis(f"{metric} (%)", 0, 100, vertical=True)
    points = [(step, 100 * value) for step, value in validations]
    drawn = line(f"val {metric}", "first", x, y, points)
    marks = tuple(
        (x.at(a), y.at(b), f"step {a:.0f}: {b:.1f}" + (" (selected)" if a == selected else ""))
        for a, b in points
    )
    best = max(value for _, value in points)
    summary = f"{metric} on the validation split; best {best:.1f} %."
    lines = (Line(drawn.name, drawn.style, drawn.path, marks),)
    return Chart(f"{metric} on the validation split", summary, x, y, lines)
