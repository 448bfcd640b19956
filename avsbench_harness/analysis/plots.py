"""Plots of results for papers.

Every function returns a matplotlib figure; :func:`save` writes a figure.
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

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Supported file formats.
FORMATS = ("pdf", "png", "svg")
#: Colours that readers with any colour vision tell apart (Okabe and Ito, 2008).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000")
#: Width of one column of a paper, in inches.
COLUMN = 3.4
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
    for index, (name, curve) in enumerate(curves.items()):
        thresholds = np.linspace(0, 1, len(curve))
        best = int(curve.argmax())
        label = f"{name}: best {100 * curve[best]:.1f} at {thresholds[best]:.2f}"
        (line,) = axes.plot(thresholds, 100 * curve, label=label, color=COLOURS[index % len(COLOURS)])
        axes.plot(thresholds[best], 100 * curve[best], "o", color=line.get_color())
    axes.set(xlabel="threshold", ylabel="F (%)", ylim=(0, 100), xlim=(0, 1))
    axes.axvline(0.5, color="0.8", zorder=0)
    axes.legend(fontsize="small", frameon=False)
    return figure


def training_curves(lines: Sequence[Mapping[str, Any]], metric: str) -> Figure:
    """Training loss with its moving average over steps, and a validation metric if it was logged.

    Args:
        lines: entries of a run's ``log.jsonl``.
        metric: validation metric to show.
    """
    figure = new_figure(COLUMN, 2.4)
    axes = figure.subplots()
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    if losses:
        steps, values = np.asarray(losses, np.float64).T
        window = min(max(3, len(values) // 40), len(values))
        average = np.convolve(values, np.ones(window) / window, mode="valid")
        axes.plot(steps, values, color=COLOURS[0], alpha=0.25, lw=0.6)
        axes.plot(steps[window - 1 :], average, color=COLOURS[0], label=f"loss, mean of {window} steps")
    axes.set(xlabel="step", ylabel="loss")
    scored = [
        (line["step"], 100 * line["val"][metric])
        for line in lines
        if line.get("val", {}).get(metric) is not None
    ]
    if scored:
        right = axes.twinx()
        right.plot(*zip(*scored, strict=True), "o--", color=COLOURS[4], ms=3, label=f"val {metric}")
        right.set(ylabel=f"val {metric} (%)", ylim=(0, 100))
    figure.legend(loc="outside upper center", ncols=2, fontsize=7, frameon=False)
    return figure


def robustness_bars(rows: Mapping[str, Mapping[str, float]], metric: str) -> Figure:
    """A metric of runs under audio conditions, one group of bars per run.

    Args:
        rows: run -> condition -> value in [0, 1]; a condition that a run lacks is shown as missing.
        metric: name of the metric.
    """
    conditions = list(dict.fromkeys(name for values in rows.values() for name in values))
    figure = new_figure(COLUMN, 0.9 + 0.22 * len(rows) * (len(conditions) + 1))
    axes = figure.subplots()
    size = 0.8 / max(1, len(conditions))
    for index, name in enumerate(conditions):
        places = np.arange(len(rows)) + (index - (len(conditions) - 1) / 2) * size
        values = np.array([100 * row.get(name, np.nan) for row in rows.values()])
        colour = COLOURS[index % len(COLOURS)]
        bars = axes.barh(places, np.nan_to_num(values), size, color=colour, label=name)
        texts = ["n/a" if np.isnan(value) else f"{value:.1f}" for value in values]
        axes.bar_label(bars, texts, padding=2, fontsize=6)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel=f"{metric} (%)", xlim=(0, 108))
    figure.legend(loc="outside upper center", ncols=min(4, len(conditions)), fontsize=7, frameon=False)
    return figure


def ablation_bars(
    rows: Sequence[str], values: Sequence[float], intervals: Sequence[Any], metric: str
) -> Figure:
    """Rows of an ablation table, each with the interval of its difference to the full method.

    Args:
        rows: names of the rows.
        values: metric of the rows, in [0, 1]; NaN for a row that was not measured, which is shown as missing.
        intervals: (low, high) of the difference to the full method; ``None`` for the full method.
        metric: name of the metric.
    """
    figure = new_figure(5.0, 0.6 + 0.35 * len(rows))
    axes = figure.subplots()
    percent = 100 * np.asarray(values, np.float64)
    colours = [COLOURS[0] if one is not None else COLOURS[1] for one in intervals]
    bars = axes.barh(range(len(rows)), np.nan_to_num(percent), color=colours)
    texts = ["n/a (not run)" if np.isnan(value) else f"{value:.1f}" for value in percent]
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # above the line of an interval
    axes.bar_label(bars, texts, padding=3, fontsize=7, bbox=box, zorder=3)
    axes.margins(x=0.12)
    full = next((value for value, one in zip(percent, intervals, strict=True) if one is None), None)
    for index, interval in enumerate(intervals):
        if interval is not None and full is not None and np.isfinite(percent[index]):
            axes.plot([full + 100 * interval[0], full + 100 * interval[1]], [index, index], color="k", lw=1)
    if full is not None:
        axes.axvline(full, color=COLOURS[1], lw=1, ls="--", zorder=0)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set(xlabel=f"{metric} (%)")
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
