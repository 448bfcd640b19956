"""The text page of ``avsb runs watch``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avsbench_harness.cli.live import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from avsbench_harness.launch.watch import WatchState

#: Marks of a curve, from low to high.
_MARKS = "▁▂▃▄▅▆▇█"

#: Number of marks in a curve, and of validations that are listed.
_WIDTH, _VALIDATIONS = 48, 8


def watch_page(state: WatchState) -> RenderableType:
    """Return the page: one table of facts, and one of the last validations."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    facts, last, measured = state.facts, state.last, state.measured
    table = Table(show_header=False, title=Text(facts.run), title_justify="left")
    table.add_row("state", Text(facts.state + (f": {facts.reason}" if facts.reason else "")))
    if facts.total:
        share = f"{(facts.step or 0) / facts.total:.0%}"
        left = ""
        if facts.state == "running" and state.heartbeat and state.heartbeat.seconds_left is not None:
            left = f", {duration(state.heartbeat.seconds_left)} left"
        table.add_row("step", Text(f"{facts.step}/{facts.total} ({share}){left}"))
    if last:
        hidden = {"step", "epoch", "lr", "gradient_norm", "measured"}
        numbers = {key: value for key, value in last.items() if key not in hidden}
        table.add_row("epoch", str(last["epoch"]))
        table.add_row("loss", Text(curve(state.losses)))
        table.add_row("", Text("  ".join(f"{name} {value:.4g}" for name, value in numbers.items())))
    if last.get("lr") is not None:
        table.add_row("learning rate", f"{last['lr']:.3g}")
    if last.get("gradient_norm") is not None:
        table.add_row("gradient norm", f"{last['gradient_norm']:.3g}")
    if measured:
        speed = f"{measured['clips_per_second']:.2f} clips/s, {measured['memory_gib']:.1f} GiB"
        table.add_row("speed, memory", speed)
    parts: list[RenderableType] = [table]
    if state.validations:
        names = list(state.validations[-1][1])
        metrics = Table("step", *names, title="validation", title_justify="left")
        for step, values in state.validations[-_VALIDATIONS:]:
            shown = [values.get(name) for name in names]
            metrics.add_row(str(step), *("n/a" if one is None else f"{one:.4f}" for one in shown))
        parts.append(metrics)
    return Group(*parts)


def curve(values: Sequence[float]) -> str:
    """Draw values as a line of at most 48 marks, each the mean of a part of them."""
    from avsbench_harness.launch.watch import bin_means

    means = bin_means(values, _WIDTH)
    if not means:
        return ""
    low, high = min(means), max(means)
    scale = (len(_MARKS) - 1) / (high - low) if high > low else 0.0
    marks = "".join(_MARKS[round((value - low) * scale)] for value in means)
    return f"{marks} {values[-1]:.4g}"
