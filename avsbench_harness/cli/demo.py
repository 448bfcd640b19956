"""``avsb demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsbench_harness.cli.common import DeviceOption, JsonOption, print_json, print_rich
from avsbench_harness.cli.live import duration

if TYPE_CHECKING:
    from rich.table import Table

    from avsbench_harness.launch.demo import DemoResult, DemoRun

#: The methods of the demonstration, each with its changes to the preset, which keep the time short.
RECIPES = {
    "avsegformer": {"epochs": 2, "validation.first": 2},
    "aqformer": {"epochs": 1, "schedule.warmup_steps": 20},
}

_EXPLANATION = """\
J is the mean IoU of the masks, from 0 to 1. "swapped" predicts every clip with
the recording of another clip; the gain is the part of J that needs the audio.
"every object" is a perfect segmenter that ignores the audio."""

#: Commands to continue with, and their purposes.
_NEXT = (
    ("avsb run --method avsegformer --preset mini --task ms3", "train all epochs of the preset"),
    ("avsb methods", "list all methods"),
    ("avsb data check AVSBench", "check AVSBench on disk, for --data"),
)


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything that is written.")] = Path("demo"),
    device: DeviceOption = None,
    json: JsonOption = False,
) -> None:
    """Train two methods briefly on AVS-Mini, and score them with clean and with swapped audio.

    Composes AVS-Mini (real recordings, drawn objects) in the cache, trains at preset mini with fewer epochs,
    and writes the leaderboard and an HTML site with the predicted masks. Takes a few minutes on two CPU
    cores. Rerun the same command to resume an interrupted demo. Needs the extra demo:
    pip install "avsbench-harness[demo]".

    \b
    Examples:
      avsb demo
      avsb demo --out /tmp/demo --device cpu
    """
    from avsbench_harness.launch.demo import run_demo

    result = run_demo(RECIPES, out, device)
    if json:
        print_json(result.to_json())
    else:
        _show(result)


def _show(result: DemoResult) -> None:
    """Print one screen: the scores, the pages and the next commands."""
    first = result.runs[0]
    score = first.robustness.conditions[0].score
    print_rich(
        f"\n{first.record.data.name}, {first.record.task} {first.record.data.split}, {score.clips} clips, "
        f"{score.protocol} ({duration(result.seconds)} on {first.record.environment.device})\n",
        _table(result, score.main[0]),
        f"\n{_EXPLANATION}\n",
    )
    typer.echo(f"page:        {result.site}\nleaderboard: {result.leaderboard}\n\nNext:")
    for command, purpose in _NEXT:
        typer.echo(f"  {command}\n      {purpose}")


def _table(result: DemoResult, metric: str) -> Table:
    """One row per method and trivial prediction."""
    from rich.table import Table

    table = Table("prediction", box=None, padding=(0, 2, 0, 0))
    for heading in (f"{metric} clean", f"{metric} swapped", "gain"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("95 % interval", no_wrap=True)
    for run in result.runs:
        table.add_row(*_cells(run, metric))
    for name, scores in result.baselines.items():
        table.add_row(name, _number(scores.metrics[metric]))
    return table


def _cells(run: DemoRun, metric: str) -> list[str]:
    """The row of a method."""
    clean, swapped = run.robustness.conditions
    gain = (swapped.gain or {}).get(metric)
    interval = None if gain is None else gain.interval
    return [
        f"{run.record.method}, {_epochs(run)}",
        _number(clean.score.metrics[metric]),
        _number(swapped.score.metrics[metric]),
        _number(None if gain is None else gain.value, "+.4f"),
        "n/a" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}",
    ]


def _epochs(run: DemoRun) -> str:
    epochs = (run.record.spec or {}).get("recipe", {}).get("epochs")
    return f"{epochs or 'n/a'} {'epoch' if epochs == 1 else 'epochs'}"


def _number(value: float | None, form: str = ".4f") -> str:
    return "n/a" if value is None else format(value, form)
