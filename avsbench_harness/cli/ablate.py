"""``avsb ablate``: ablation tables of the papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsbench_harness.cli.common import (
    DataOption,
    DeviceOption,
    JsonOption,
    OutOption,
    print_json,
    print_rich,
)
from avsbench_harness.cli.sweep import (
    DryRunOption,
    ExecutorOption,
    GridSetOption,
    JobsOption,
    ResourcesOption,
    read_job_resources,
    run_grid,
    show_plan,
)

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Ablation tables of the papers, measured vs. reported."
)

NAME = typer.Argument(help="Name of the table (method/table); see `avsb ablate list`.")
TASK = typer.Option("--task", help="Defaults to the first task of the paper's table.")
BACKBONE = typer.Option("--backbone", help="Defaults to the first backbone of the paper's table.")
ROW = typer.Option("--row", help="Run only this row and the full method; may be repeated.")
PRETRAINED = typer.Option("--pretrained/--no-pretrained", help="Use ImageNet weights for the backbone.")


@app.command(name="list")
def list_(json: JsonOption = False) -> None:
    """List the ablation tables of all methods.

    \b
    Examples:
      avsb ablate list
    """
    from rich.table import Column, Table
    from rich.text import Text

    from avsbench_harness.ablation.definition import ablations

    found = ablations()
    if json:
        print_json({name: ablation.model_dump(mode="json") for name, ablation in found.items()})
        return
    table = Table(Column("ablation", no_wrap=True), "source", "subject", "tasks", "rows")
    for name, ablation in found.items():
        table.add_row(
            Text(name),
            Text(f"{ablation.paper}, {ablation.table}"),
            Text(ablation.title),
            ", ".join(ablation.tasks),
            str(len(ablation.rows)),
        )
    print_rich(table)


@app.command()
def run(
    name: Annotated[str, NAME],
    task: Annotated[str | None, TASK] = None,
    backbone: Annotated[str | None, BACKBONE] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Number of seeds, counted from 0.")] = 1,
    rows: Annotated[list[str] | None, ROW] = None,
    data: DataOption = None,
    preset: Annotated[str | None, typer.Option("--preset", help="full, smoke or another preset.")] = None,
    pretrained: Annotated[bool | None, PRETRAINED] = None,
    assignments: GridSetOption = None,
    out: OutOption = Path(),
    device: DeviceOption = None,
    jobs: JobsOption = 1,
    executor: ExecutorOption = "local",
    resources: ResourcesOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Execute the missing runs of an ablation table and write the table.

    \b
    Examples:
      avsb ablate run combo/table5 --task s4 --backbone r50 --seeds 3 --data AVSBench
      avsb ablate run avsegformer/table2a --dry-run
    """
    from avsbench_harness.launch.ablation_grid import AblationRequest, ablation_grid
    from avsbench_harness.launch.sweep import cells
    from avsbench_harness.recipe.resolve import split_assignment

    job_resources = read_job_resources(executor, resources)
    request = AblationRequest(
        task=task,
        backbone=backbone,
        seeds=range(seeds),
        data=data,
        preset=preset,
        pretrained=pretrained,
        rows=tuple(rows or ()),
        overrides=dict(map(split_assignment, assignments or [])),
    )
    planned = cells(ablation_grid(name, request), out, device)
    if dry_run:
        show_plan(planned, out, json)
        return
    run_grid(planned, jobs, out, json, job_resources, ablations=[name])


@app.command()
def table(
    name: Annotated[str, NAME],
    results: Annotated[Path, typer.Option("--results", help="Folder with the records.")] = Path("results"),
    json: JsonOption = False,
) -> None:
    """Write an ablation table from the existing records and print it.

    \b
    Examples:
      avsb ablate table combo/table5
    """
    from avsbench_harness.ablation.export import write_tables
    from avsbench_harness.errors import MissingDataError

    if not results.is_dir():
        raise MissingDataError(f"There is no folder {results}; create it with `avsb ablate run`.")
    page, csv = write_tables(name, results)
    if json:
        print_json({"page": str(page), "csv": str(csv)})
    else:
        typer.echo(page.read_text(encoding="utf-8"), nl=False)
        typer.echo(f"\nwritten: {page}", err=True)
