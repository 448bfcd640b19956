"""``avsb robustness``: finished runs under audio conditions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avsbench_harness.cli.common import (
    DataOption,
    DeviceOption,
    JsonOption,
    WorkersOption,
    print_json,
    print_rich,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from avsbench_harness.errors import AvsbError
    from avsbench_harness.results.robustness import RobustnessRecord
    from avsbench_harness.tasks import Split


def robustness(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Ids of finished runs, unique prefixes or patterns of them, or all."
        ),
    ],
    split: Annotated[str, typer.Option("--split", help="test or val.")] = "test",
    data: DataOption = None,
    method: Annotated[
        str | None, typer.Option("--method", help="Folder of the method, if it is not installed.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder with runs/, submissions/ and results/.")
    ] = Path(),
    device: DeviceOption = None,
    workers: WorkersOption = None,
    json: JsonOption = False,
) -> None:
    """Measure how much finished runs use the audio.

    Every clip is predicted again with the recording of another clip that has other sounds. Audio gain: the
    score with the own recording minus that with the other one, with a paired 95 % interval over clips. Audio
    sensitivity: 1 - mean IoU of the two predictions.

    Writes submissions/<run-id>-swapped.npz and results/robustness/<run-id>.json; a run that has a record is
    not measured again. A run that fails does not stop the others; the exit code is that of the first failure.

    \b
    Examples:
      avsb robustness RUN-ID --data AVSBench
      avsb robustness all --data avs-mini
      avsb robustness 'ms3-*' 'avss-combo-*' --split val --data avs-mini --json
    """
    from avsbench_harness.errors import AvsbError, Interrupted
    from avsbench_harness.launch.robustness import finished_runs
    from avsbench_harness.tasks import get_split

    part = get_split(split)
    names = finished_runs(runs, out)
    records: list[RobustnessRecord] = []
    failures: dict[str, AvsbError] = {}
    for name in names:
        try:
            records.append(_measure(name, part, out, data, method, device, workers))
        except Interrupted:
            raise
        except AvsbError as error:
            if len(names) == 1:
                raise
            failures[name] = error
    if json:
        print_json([*(record.model_dump(mode="json") for record in records), *_json(failures)])
    else:
        _show(records)
        for name, failure in failures.items():
            typer.echo(f"error: {name}: {failure}", err=True)
    if failures:
        raise typer.Exit(next(iter(failures.values())).exit_code)


def _measure(
    name: str,
    split: Split,
    out: Path,
    data: Path | None,
    method: str | None,
    device: str | None,
    workers: int | None,
) -> RobustnessRecord:
    from avsbench_harness.launch.device import default_workers, run_device
    from avsbench_harness.launch.open_run import open_run
    from avsbench_harness.launch.robustness import measure_robustness

    run = open_run(str(out / "runs" / name), out, data=data, method=method)
    run = replace(
        run,
        out=out,
        device=run_device(device, run.recipe),
        workers=default_workers() if workers is None else workers,
    )
    return measure_robustness(run, split)


def _json(failures: dict[str, AvsbError]) -> list[dict[str, Any]]:
    return [
        {"run_id": name, "error": str(error), "exit_code": error.exit_code}
        for name, error in failures.items()
    ]


def _show(records: Sequence[RobustnessRecord]) -> None:
    """Print one table per task and data set."""
    groups: dict[str, list[RobustnessRecord]] = {}
    for record in records:
        name = f"{record.data.name} (SYNTHETIC)" if record.data.synthetic else record.data.name
        protocol = record.conditions[0].score.protocol
        groups.setdefault(f"{name}, {record.task} {record.data.split}, {protocol}", []).append(record)
    for title, group in groups.items():
        print_rich(title, _table(group))
    for record in records:
        if record.left_out:
            typer.echo(
                f"{record.run_id}: {len(record.left_out)} clips without a recording of other sounds are left "
                f"out, such as {record.left_out[0]}"
            )


def _table(records: Sequence[RobustnessRecord]) -> Table:
    """One row per run, with the first main metric."""
    from rich.table import Table

    from avsbench_harness.robustness.conditions import CLEAN, SWAPPED

    metric = records[0].conditions[0].score.main[0]
    table = Table()
    table.add_column("run", overflow="fold")
    for heading in (f"{metric} {CLEAN}", SWAPPED, "gain", "95 % interval", "sensitivity"):
        table.add_column(heading, no_wrap=True)
    for record in records:
        clean, swapped = record.condition(CLEAN), record.condition(SWAPPED)
        if clean is None or swapped is None or swapped.gain is None:
            continue
        gain = swapped.gain[metric]
        table.add_row(
            record.run_id,
            _cell(clean.score.metrics[metric]),
            _cell(swapped.score.metrics[metric]),
            _cell(gain.value, "+.4f"),
            "n/a" if gain.interval is None else f"{gain.interval[0]:+.4f} to {gain.interval[1]:+.4f}",
            _cell(swapped.sensitivity),
        )
    return table


def _cell(value: float | None, form: str = ".4f") -> str:
    return "n/a" if value is None else format(value, form)
