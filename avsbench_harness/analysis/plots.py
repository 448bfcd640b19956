"""Plots of results for the HTML site and for papers.

Every function returns a matplotlib figure or an image; :func:`save` writes a figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.analysis.token_projection import Point
from avsbench_harness.errors import unknown
from avsbench_harness.files import atomic_write
from avsbench_harness.submission.strips import clip_strip as clip_strip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Supported file formats.
FORMATS = ("pdf", "png", "svg")
#: Number of token labels with a colour of their own; the points of all others are grey.
LABEL_COLOURS = 10


def new_figure(width: float = 5.0, height: float = 3.2) -> Figure:
    """An empty figure of the given size in inches, without a window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path, dots_per_inch: int = 120) -> None:
    """Write a figure atomically; equal figures give equal bytes.

    Args:
        figure: the figure.
        path: file to write; the suffix selects the format.
        dots_per_inch: resolution of pixel formats.

    Raises:
        UsageError: unknown format.
    """
    import matplotlib

    form = path.suffix.removeprefix(".").lower()
    if form not in FORMATS:
        raise unknown("plot format", form, FORMATS)
    # Without dates and random ids, a regenerated page does not change.
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}[form]
    with matplotlib.rc_context({"svg.hashsalt": "avsb"}), atomic_write(path) as file:
        figure.savefig(file, format=form, dpi=dots_per_inch, metadata=metadata)


def threshold_curves(curves: Mapping[str, NDArray[np.float64]]) -> Figure:
    """Mean F over clips at each of the 255 thresholds, with the best threshold marked.

    Args:
        curves: name -> (255,) F of object/1.
    """
    figure = new_figure()
    axes = figure.subplots()
    for name, curve in curves.items():
        thresholds = np.linspace(0, 1, len(curve))
        (line,) = axes.plot(thresholds, curve, label=name)
        best = int(curve.argmax())
        axes.plot(thresholds[best], curve[best], "o", color=line.get_color())
    axes.set(xlabel="threshold", ylabel="F (β² = 0.3)", ylim=(0, 1))
    axes.axvline(0.5, color="0.8", zorder=0)
    if len(curves) > 1:
        axes.legend(fontsize="small")
    return figure


def clip_histogram(values: NDArray[np.float64], metric: str) -> Figure:
    """Histogram of the scores of clips.

    Args:
        values: (N,) scores, NaN for clips without a score.
        metric: name of the metric.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure()
    axes = figure.subplots()
    axes.hist(values[np.isfinite(values)], bins=20, range=(0, 1))
    axes.set(xlabel=f"{metric} of a clip", ylabel="clips", xlim=(0, 1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def class_bars(names: Sequence[str], values: NDArray[np.float64]) -> Figure:
    """IoU per class, best first.

    Args:
        names: names of the classes that occur.
        values: IoU of these classes.
    """
    order = np.argsort(-values, kind="stable")
    figure = new_figure(5.0, max(1.5, 0.17 * len(names)))
    axes = figure.subplots()
    axes.barh([names[index] for index in order], values[order])
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=6)
    axes.set(xlabel="IoU", xlim=(0, 1))
    return figure


def training_curves(lines: Sequence[Mapping[str, Any]], metric: str) -> Figure:
    """Training loss over steps, and a validation metric if it was logged.

    Args:
        lines: entries of a run's ``log.jsonl``.
        metric: validation metric to show.
    """
    figure = new_figure()
    axes = figure.subplots()
    steps = [line["step"] for line in lines if "loss" in line]
    axes.plot(steps, [line["loss"] for line in lines if "loss" in line], color="C0")
    axes.set(xlabel="step")
    axes.set_ylabel("loss", color="C0")
    scored = [
        (line["step"], line["val"][metric]) for line in lines if line.get("val", {}).get(metric) is not None
    ]
    if scored:
        right = axes.twinx()
        right.plot(*zip(*scored, strict=True), "o-", color="C1")
        right.set_ylabel(f"val {metric}", color="C1")
    return figure


def ablation_bars(
    rows: Sequence[str], values: Sequence[float], intervals: Sequence[Any], metric: str
) -> Figure:
    """Rows of an ablation table, each with the interval of its difference to the full method.

    Args:
        rows: names of the rows.
        values: metric of the rows, in [0, 1].
        intervals: (low, high) of the difference to the full method; ``None`` for the full method.
        metric: name of the metric.
    """
    figure = new_figure(5.0, 0.6 + 0.35 * len(rows))
    axes = figure.subplots()
    percent = 100 * np.asarray(values)
    axes.barh(range(len(rows)), percent, color=["C0" if one is not None else "C2" for one in intervals])
    full = next((value for value, one in zip(percent, intervals, strict=True) if one is None), None)
    for index, interval in enumerate(intervals):
        if interval is not None and full is not None:
            axes.plot([full + 100 * interval[0], full + 100 * interval[1]], [index, index], color="k")
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set(xlabel=f"{metric} (%)")
    return figure


def waveform(samples: NDArray[np.float64], rate: int, frames: int) -> Figure:
    """Waveform of a recording, with the second of each frame marked.

    Args:
        samples: (n,) in [-1, 1].
        rate: samples per second.
        frames: number of frames of the clip, one per second.
    """
    figure = new_figure(8.0, 1.1)
    axes = figure.subplots()
    axes.plot(np.arange(len(samples)) / rate, samples, linewidth=0.4)
    for second in range(frames):
        axes.axvspan(second, second + 1, color="C1" if second % 2 else "C2", alpha=0.12)
        axes.text(second + 0.5, 0.85, f"{second + 1}", ha="center", va="top", fontsize=7)
    axes.set(xlim=(0, max(frames, len(samples) / rate)), ylim=(-1, 1), yticks=[], xlabel="s")
    return figure


def token_scatter(points: Sequence[Point], title: str) -> Figure:
    """Scatter plot of audio tokens: colours are classes, discs single-source and crosses multi-source clips.

    Args:
        points: projected tokens.
        title: title of the plot.
    """
    from matplotlib import colormaps

    figure = new_figure(7.0, 5.0)
    axes = figure.subplots()
    labels = sorted(label for label, _ in Counter(point.label for point in points).most_common(LABEL_COLOURS))
    for label in [None, *labels]:
        members = [p for p in points if p.label == label or (label is None and p.label not in labels)]
        colour = "0.8" if label is None else colormaps["tab10"](labels.index(label))
        for several, marker in ((False, "o"), (True, "x")):
            drawn = [point for point in members if point.several is several]
            if drawn:
                axes.scatter(
                    [point.x for point in drawn],
                    [point.y for point in drawn],
                    s=16,
                    marker=marker,
                    color=colour,
                    label="other" if label is None else label,
                )
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
