"""``avsb robustness``: finished runs under audio conditions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

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
    from collections.abc import Callable, Iterable, Sequence

    from rich.table import Table

    from avsbench_harness.errors import AvsbError
    from avsbench_harness.results.robustness import RobustnessRecord
    from avsbench_harness.tasks import Split


ConditionsOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--conditions",
        metavar="NAMES",
        help="Audio conditions, separated by commas, or all; defaults to clean, silence, noise-white, "
        "noise-pink, swapped, mixed@10, mixed@0, mixed@-10.",
    ),
]


def split_names(text: str | None) -> list[str]:
    """The names in an option's value, separated by commas; none without a value."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def robustness(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Ids of finished runs, unique prefixes or patterns of them, or all."
        ),
    ],
    conditions: ConditionsOption = None,
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
    """Measure how finished runs predict under audio conditions: silence, noise, swapped and mixed audio.

    Every clip is predicted under each condition, in one pass over the clips. Metrics are J and F,
    false-positive rate, S, AUC_N, audio sensitivity (1 - mean IoU with the clean prediction), audio gain (J
    clean minus J under the condition) and the area under J over the signal-to-noise ratio, with 95 %
    intervals by paired bootstrap over clips; docs/robustness.md has the definitions.

    Writes submissions/<run-id>-<condition>.npz and results/robustness/<run-id>.json; conditions that a record
    has are not measured again. Rerun to resume. A run that fails does not stop the others.

    \b
    Conditions:
      clean, silence, noise-white, noise-pink, swapped
      mixed@SNR with the SNR 20, 10, 5, 0, -5 or -10 (dB)
      shifted@1, shifted@2 (seconds; ms3 and avss)

    \b
    Examples:
      avsb robustness RUN-ID --data AVSBench
      avsb robustness all --data avs-mini --conditions all
      avsb robustness 'ms3-*' 'avss-combo-*' --conditions swapped,silence --split val --data avs-mini --json
    """
    from avsbench_harness.launch.robustness import finished_runs
    from avsbench_harness.robustness.conditions import choose_conditions
    from avsbench_harness.tasks import get_split

    part, chosen = get_split(split), split_names(conditions)
    choose_conditions(chosen)  # unknown ones are refused before any work
    records, failures = _measure_all(
        finished_runs(runs, out),
        lambda name: _measure(name, part, chosen, out, data, method, device, workers),
    )
    if json:
        print_json([*(record.model_dump(mode="json") for record in records), *_json(failures)])
    else:
        _show(records)
        for name, failure in failures.items():
            typer.echo(f"error: {name}: {failure}", err=True)
    if failures:
        raise typer.Exit(next(iter(failures.values())).exit_code)


def _measure_all(
    names: Sequence[str], measure: Callable[[str], RobustnessRecord]
) -> tuple[list[RobustnessRecord], dict[str, AvsbError]]:
    """Measure runs one after the other; returns the records, and the errors of the others by run id.

    The error of a single run is raised.
    """
    from avsbench_harness.errors import AvsbError, Interrupted

    records: list[RobustnessRecord] = []
    failures: dict[str, AvsbError] = {}
    for name in names:
        try:
            records.append(measure(name))
        except Interrupted:
            raise
        except AvsbError as error:
            if len(names) == 1:
                raise
            failures[name] = error
    return records, failures


def _measure(
    name: str,
    split: Split,
    conditions: Sequence[str],
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
    return measure_robustness(run, split, conditions)


def _json(failures: dict[str, AvsbError]) -> list[dict[str, Any]]:
    return [
        {"run_id": name, "error": str(error), "exit_code": error.exit_code}
        for name, error in failures.items()
    ]


def _show(records: Sequence[RobustnessRecord]) -> None:
    """Print one table per run."""
    for record in records:
        print_rich(*robustness_lines(record))


def robustness_lines(record: RobustnessRecord) -> Iterable[str | Table]:
    """A run's scores under audio conditions as a title, a table, and remarks."""
    from rich.table import Table

    name = f"{record.data.name} (SYNTHETIC)" if record.data.synthetic else record.data.name
    first = record.conditions[0].score
    metric = first.main[0]
    yield f"{record.run_id}: {name}, {record.task} {record.data.split}, {first.protocol}, percent"
    table = Table("condition", box=None, padding=(0, 1))
    for heading in (metric, "gain", "95 % interval", "sens.", "FPR", "S", "AUC_N"):
        table.add_column(heading, no_wrap=True, justify="right")
    for entry in record.conditions:
        gain = None if entry.gain is None else entry.gain[metric]
        interval = None if gain is None else gain.interval
        metrics = entry.metrics or {}
        table.add_row(
            entry.condition,
            _percent(entry.score.metrics[metric]),
            "" if gain is None else _percent(gain.value, sign=True),
            ""
            if interval is None
            else f"{_percent(interval[0], sign=True)} to {_percent(interval[1], sign=True)}",
            "" if gain is None else _percent(entry.sensitivity),
            *(_percent(metrics[key].value) if key in metrics else "" for key in ("fpr/1", "s/1", "auc_n/1")),
        )
    yield table
    if record.snr is not None:
        low, high = record.snr.snrs[0], record.snr.snrs[-1]
        yield f"area under {metric} from {low} to {high} dB: {_percent(record.snr.area.value)}"
    yield from (f"not available: {name}: {reason}" for name, reason in record.unavailable.items())
    if record.left_out:
        yield (
            f"{len(record.left_out)} clips without a recording of other sounds are left out, such as "
            f"{record.left_out[0]}"
        )


def _percent(value: float | None, *, sign: bool = False) -> str:
    from avsbench_harness.leaderboard.formatting import percent

    return "n/a" if value is None else percent(value, sign=sign)
