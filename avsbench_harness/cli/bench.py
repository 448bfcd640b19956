"""``avsb bench``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from avsbench_harness.cli.common import (
    DataOption,
    DeviceOption,
    JsonOption,
    SetOption,
    TaskOption,
    VariantOption,
    WorkersOption,
    print_json,
    print_rich,
)

if TYPE_CHECKING:
    from avsbench_harness.launch.benchmark import Result
    from avsbench_harness.results.measurement import Measurement, SpeedEntry


PrecisionOption: TypeAlias = Annotated[
    str | None, typer.Option("--precision", help="fp32, bf16 or fp16; defaults to the recipe's.")
]
BatchOption: TypeAlias = Annotated[
    int | None, typer.Option("--batch", min=1, help="Clips per step; defaults to the recipe's.")
]
RepeatsOption: TypeAlias = Annotated[
    int, typer.Option("--repeats", min=1, help="Timed repetitions after one warm-up.")
]


def bench(
    method: Annotated[
        str | None,
        typer.Argument(help="Name, alias or folder of a method; defaults to all installed methods."),
    ] = None,
    backbone: Annotated[str, typer.Option("--backbone", help="Comma-separated backbones.")] = "r50",
    task: TaskOption = "s4",
    variant: VariantOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    batch: BatchOption = None,
    assignments: SetOption = None,
    repeats: RepeatsOption = 5,
    data: DataOption = None,
    workers: WorkersOption = None,
    out: Annotated[Path, typer.Option("--out", help="Folder that holds results/.")] = Path(),
    json: JsonOption = False,
) -> None:
    """Measure the size, speed, memory and data-loading time of methods on this machine.

    Networks have random weights and the image size, batch size and precision of their full recipe; the
    audio encoder is not included. Speed is given in clips per second (CUDA events on CUDA, wall-clock time
    on the CPU) and as a multiple of the time of the bare backbone, measured alternately with it (processor
    time on the CPU): median, minimum and maximum of the repetitions. Memory is the peak during training.
    The data-loading time is the share of a short training loop that is spent waiting for the loader. Each
    measurement is written to results/bench/; leaderboards read their cost columns from there.

    \b
    Examples:
      avsb bench
      avsb bench combo --backbone r50,pvt --task ms3 --batch 4
      avsb bench avsegformer --backbone pvt --set image_size=224
      avsb bench avsegformer --device cuda --precision bf16 --data AVSBench
    """
    from avsbench_harness.errors import AvsbError
    from avsbench_harness.launch.benchmark import BenchRequest
    from avsbench_harness.launch.benchmark import bench as measure

    request = BenchRequest(
        method=method,
        backbones=tuple(name.strip() for name in backbone.split(",") if name.strip()),
        task=task,
        variant=variant,
        device=device,
        precision=precision,
        batch=batch,
        assignments=tuple(assignments or ()),
        repeats=repeats,
        data=data,
        workers=workers,
        out=out,
    )
    results = list(measure(request))
    if json:
        print_json([_to_json(result) for result in results])
    else:
        _show(results)
    if any(result.fault for result in results):
        raise typer.Exit(AvsbError.exit_code)


def _to_json(result: Result) -> dict[str, object]:
    measurement = result.measurement
    return {
        "method": result.method,
        "backbone": result.backbone,
        "measurement": measurement.model_dump(mode="json") if measurement else None,
        "file": str(result.path) if result.path else None,
        "left_out": result.reason or None,
    }


def _show(results: Sequence[Result]) -> None:
    from rich.table import Table
    from rich.text import Text

    measured = [result.measurement for result in results if result.measurement]
    if measured:
        table = Table(title=Text(_title(measured[0])), title_justify="left", show_lines=True)
        table.add_column("network")
        for heading in (
            "M params\nGMACs", "forward\nclips/s", "training\nclips/s", "peak\nGiB", "data\nwait",
        ):  # fmt: skip
            table.add_column(heading, justify="right")
        for measurement in measured:
            table.add_row(*map(Text, _cells(measurement)))
        print_rich(table)
    for result in results:
        if result.path:
            typer.echo(f"written: {result.path}")
        else:
            typer.echo(f"{result.method} {result.backbone}: n/a ({result.reason})")


def _title(measurement: Measurement) -> str:
    device = measurement.device
    threads = f", {device.threads} threads" if device.threads else ""
    clock = "CUDA events" if device.kind == "cuda" else "wall-clock time, multiples in processor time"
    return (
        f"{measurement.task} on {device.name}{threads}: median (minimum to maximum) of "
        f"{measurement.repeats} repetitions, {clock}; x: multiple of the bare backbone's time"
    )


def _cells(measurement: Measurement) -> list[str]:
    batch = measurement.batch
    return [
        f"{measurement.method} ({measurement.variant}) {measurement.backbone}\n"
        f"{batch.clips} x {batch.frames} x {batch.image_size} px, {measurement.precision}"
        + "".join(f"\n{key}={value}" for key, value in measurement.changes.items()),
        f"{measurement.cost.parameters / 1e6:.1f}\n{measurement.cost.gmacs:.1f}",
        _speed(measurement.forward),
        _speed(measurement.training),
        "n/a" if measurement.memory_gib is None else f"{measurement.memory_gib:.2f}",
        f"{100 * measurement.loading.waiting:.0f} %\n{measurement.loading.data}",
    ]


def _speed(speed: SpeedEntry) -> str:
    rate, times = speed.clips_per_second, speed.multiple
    median, least, most = map(_short, (rate.median, rate.least, rate.most))
    return f"{median}\n{least}-{most}\n{times.median:.2f}x"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
