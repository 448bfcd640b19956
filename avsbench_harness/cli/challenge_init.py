"""``avsb challenge init``: the definition of a competition, from options or questions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from avsbench_harness.cli.common import JsonOption, print_json
from avsbench_harness.errors import UsageError

if TYPE_CHECKING:
    from avsbench_harness.host.definition import Definition


PrivateOption: TypeAlias = Annotated[
    float, typer.Option("--private", help="Fraction of the clips with private scores.")
]
SeedOption: TypeAlias = Annotated[
    int | None, typer.Option("--seed", help="Seed of the private clips; default: a random one.")
]
StartOption: TypeAlias = Annotated[
    str | None, typer.Option("--start", help="Start (UTC), 2027-03-01T12:00; default: now.")
]
EndOption: TypeAlias = Annotated[
    str | None, typer.Option("--end", help="End (UTC); default: 90 days after the start.")
]
SplitOption: TypeAlias = Annotated[str, typer.Option("--split", help="test or val.")]
PerDayOption: TypeAlias = Annotated[
    int, typer.Option("--per-day", min=1, help="Submissions of a team per day.")
]
TotalOption: TypeAlias = Annotated[int, typer.Option("--total", min=1, help="Submissions of a team in all.")]
CountsOption: TypeAlias = Annotated[
    str, typer.Option("--counts", help="What counts: best, last or selected.")
]
TiesOption: TypeAlias = Annotated[str, typer.Option("--ties", help="Ties by interval or date.")]


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the competition.")],
    title: Annotated[str | None, typer.Option("--title", help="Title.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="s4, ms3 or avss.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="AVSBench folder, mini or synthetic; default: mini.")
    ] = None,
    split: SplitOption = "test",
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="Protocol; default: the canonical one of the task.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option("--metrics", help="Metrics, the first one ranks; default: the main ones.")
    ] = None,
    private: PrivateOption = 0.5,
    seed: SeedOption = None,
    start: StartOption = None,
    end: EndOption = None,
    per_day: PerDayOption = 5,
    total: TotalOption = 100,
    counts: CountsOption = "best",
    ties: TiesOption = "interval",
    require: Annotated[
        str, typer.Option("--require", help="Required fields, such as paper,code,external_data.")
    ] = "",
    late: Annotated[str, typer.Option("--late", help="Late submissions: refuse or unranked.")] = "refuse",
    json: JsonOption = False,
) -> None:
    """Write challenge.yaml, from options or a few questions. Edit it before the first team is added.

    \b
    Examples:
      avsb challenge init avs2027
      avsb challenge init avs2027 --title "AVS 2027" --task ms3 --data mini --private 0.5 --seed 2718
      avsb challenge init avs2027 --title "AVS 2027" --task s4 --data AVSBench --end 2027-06-01
    """
    from avsbench_harness.host.definition import FILE, write_definition

    if (folder / FILE).exists():
        raise UsageError(f"{folder / FILE} exists already; edit it, or pass another folder.")
    ask = sys.stdin.isatty() and not json
    given = {
        "title": _answer(title, "Title", None, ask, "--title"),
        "task": _answer(task, "Task (s4, ms3 or avss)", "ms3", ask, "--task"),
        "data": _answer(data, "AVSBench folder, mini or synthetic", "mini", ask, "--data"),
        "split": split,
        "limits": {"per_day": per_day, "total": total},
        "counts": counts,
        "ties": ties,
        "late": late,
        "required": [name.strip() for name in require.split(",") if name.strip()],
    }
    definition = _definition(given, protocol, metrics, private, seed, (start, end))
    path = write_definition(folder, definition)
    (folder / "inbox").mkdir(exist_ok=True)
    if json:
        print_json({"definition": str(path), **definition.published()})
    else:
        typer.echo(f"written: {path}; edit it, then add teams with `avsb challenge team add`")


def _answer(value: str | None, question: str, default: str | None, ask: bool, option: str) -> str:
    if value is not None:
        return value
    if ask:
        return str(typer.prompt(question, default=default))
    if default is None:
        raise UsageError(f"{option} is required where no question can be asked.")
    return default


def _definition(
    given: dict[str, Any],
    protocol: str | None,
    metrics: str | None,
    private: float,
    seed: int | None,
    times: tuple[str | None, str | None],
) -> Definition:
    import secrets
    from datetime import UTC, datetime, timedelta

    from avsbench_harness.host.definition import Definition, check_metrics, iso, utc
    from avsbench_harness.scoring import canonical, get_protocol
    from avsbench_harness.tasks import get_task

    task = get_task(given["task"]).name
    chosen = protocol or canonical(task)
    names = (
        [name.strip() for name in metrics.split(",")] if metrics else list(get_protocol(task, chosen).main)
    )
    check_metrics(task, chosen, names)
    try:
        begin = datetime.now(UTC).replace(microsecond=0) if times[0] is None else utc(times[0])
        end = begin + timedelta(days=90) if times[1] is None else utc(times[1])
    except ValueError as error:
        raise UsageError(f"--start or --end: {error}.") from None
    values = {
        **given,
        "task": task,
        "protocol": chosen,
        "metrics": names,
        "parts": {"private": private, "seed": secrets.randbelow(2**62) if seed is None else seed},
        "phases": [{"name": "competition", "start": iso(begin), "end": iso(end)}],
        "description": f"Segment the sounding objects of the {given['split']} split.\n",
        "rules": "Train on the training data. Name external data that you use.\n",
    }
    return Definition.parse(values, "the options", "the definition of a competition")
