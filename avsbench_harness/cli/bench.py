"""``avsb bench``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsbench_harness.cli.common import DataOption, JsonOption, TaskOption, print_json, print_rich

if TYPE_CHECKING:
    from avsbench_harness.launch.benchmark import Result
    from avsbench_harness.results.measurement import Measurement, SpeedEntry


def bench(
    method: Annotated[
        str | None, typer.Argument(help="Name, alias or folder of a method; else all that are installed.")
    ] = None,
    backbone: Annotated[str, typer.Option("--backbone", help="Names, separated by commas.")] = "r50",
    task: TaskOption = "s4",
    variant: Annotated[
        str | None, typer.Option("--variant", help="released or paper; else the method's first.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu, cuda or cuda:N; else CUDA where there is one.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="fp32, bf16 or fp16; else the recipe's.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Clips per step; else the recipe's.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One change to the full recipe, such as image_size=384."
        ),
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Of each time, after a warm-up.")] = 5,
    data: DataOption = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes that decode data beside this one.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder that holds results/.")] = Path(),
    json: JsonOption = False,
) -> None:
    """Measure what methods cost here: size, speed, memory, and waiting for data.

    Networks have random weights and their full recipe's image size, batch and precision, the audio encoder
    apart. Speed is in clips per second, by CUDA's events on CUDA and by the clock on the CPU, beside
    multiples of the bare backbone's time, measured in turns with it (on the CPU in processor time): medians,
    least and most of the repeats. Memory is the peak of training. Waiting is the share of a short training
    loop on the data that the loader takes. Each measurement is a file in results/bench/, from which
    leaderboards take these columns.

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
    found = result.measurement
    return {
        "method": result.method,
        "backbone": result.backbone,
        "measurement": found.model_dump(mode="json") if found else None,
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
            "M params\nGMACs", "forward\nclips/s", "training\nclips/s", "peak\nGiB", "waits for\ndata",
        ):  # fmt: skip
            table.add_column(heading, justify="right")
        for one in measured:
            table.add_row(*map(Text, _cells(one)))
        print_rich(table)
    for result in results:
        if result.path:
            typer.echo(f"written: {result.path}")
        else:
            typer.echo(f"{result.method} {result.backbone}: n/a ({result.reason})")


def _title(one: Measurement) -> str:
    threads = f", {one.device.threads} threads" if one.device.threads else ""
    clock = "CUDA events" if one.device.kind == "cuda" else "the clock; multiples in processor time"
    return (
        f"{one.task} on {one.device.name}{threads}: medians (least to most) of {one.repeats} by {clock}; "
        "x: times the bare backbone's"
    )


def _cells(one: Measurement) -> list[str]:
    batch = one.batch
    return [
        f"{one.method} ({one.variant}) {one.backbone}\n"
        f"{batch.clips} x {batch.frames} x {batch.image_size} px, {one.precision}"
        + "".join(f"\n{key}={value}" for key, value in one.changes.items()),
        f"{one.cost.parameters / 1e6:.1f}\n{one.cost.gmacs:.1f}",
        _speed(one.forward),
        _speed(one.training),
        "n/a" if one.memory_gib is None else f"{one.memory_gib:.2f}",
        f"{100 * one.loading.waiting:.0f} %\n{one.loading.data}",
    ]


def _speed(speed: SpeedEntry) -> str:
    rate, times = speed.clips_per_second, speed.multiple
    median, least, most = map(_short, (rate.median, rate.least, rate.most))
    return f"{median}\n{least}-{most}\n{times.median:.2f}x"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
