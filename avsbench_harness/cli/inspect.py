"""``avsb inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from avsbench_harness.cli.common import DataOption, JsonOption, accepts_run, print_json, print_rich

if TYPE_CHECKING:
    from avsbench_harness.analysis.health_tables import ReportTable
    from avsbench_harness.analysis.training_health import TrainingHealth
    from avsbench_harness.engine.run import Run

app = typer.Typer(no_args_is_help=True, help="Inspect the training of a method, or a trained model.")

StepsOption: TypeAlias = Annotated[
    int, typer.Option("--steps", min=1, help="Training steps; powers of ten and the last are measured.")
]
MarkdownOption: TypeAlias = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", help="Also write the report to a Markdown file.")
]


@app.callback()
def _inspect() -> None:
    """Inspect the training of a method, or a trained model."""


@app.command()
@accepts_run("plan")
def gradients(
    planned: Run,
    steps: StepsOption = 100,
    depth: Annotated[
        int, typer.Option("--depth", min=1, help="Parts of the paths of modules in the report.")
    ] = 3,
    markdown: MarkdownOption = None,
    json: JsonOption = False,
) -> None:
    """Train for a few steps and report whether every module trains.

    Shows the gradient norm, weight norm and update-to-weight ratio of every module, the entropy of every
    attention layer, and the diagnostics of the model. Nothing of the run is written.

    \b
    Examples:
      avsb inspect gradients --method aqformer --backbone r50 --task ms3 --data AVSBench
      avsb inspect gradients RUN-ID --steps 20
      avsb inspect gradients --method qdformer --preset full --no-pretrained --steps 20 --markdown health.md
    """
    from avsbench_harness.analysis.health_tables import attention_table, module_table, step_table
    from avsbench_harness.analysis.training_health import training_health

    health = training_health(planned, steps, depth=depth)
    _report(health, [step_table(health), module_table(health), attention_table(health)], markdown, json)


@app.command()
@accepts_run("plan")
def attention(
    planned: Run, steps: StepsOption = 100, markdown: MarkdownOption = None, json: JsonOption = False
) -> None:
    """Train for a few steps and report the entropy of every attention layer, and the model's diagnostics.

    \b
    Examples:
      avsb inspect attention --method avsegformer --backbone r50 --data AVSBench --steps 20
      avsb inspect attention RUN-ID --steps 20
      avsb inspect attention --method qdformer --preset full --no-pretrained --json
    """
    from avsbench_harness.analysis.health_tables import attention_table, step_table
    from avsbench_harness.analysis.training_health import training_health

    health = training_health(planned, steps)
    _report(health, [step_table(health), attention_table(health)], markdown, json)


def _report(
    health: TrainingHealth, tables: list[ReportTable | None], markdown: Path | None, json: bool
) -> None:
    """Print a report, and write it if a file is named."""
    from avsbench_harness.distributed import rank
    from avsbench_harness.files import write_text

    if rank() != 0:
        return
    shown = [table for table in tables if table is not None]
    if markdown is not None:
        write_text(markdown, _markdown(health, shown))
    if json:
        print_json(health.to_json())
        return
    from rich.table import Table
    from rich.text import Text

    for one in shown:
        title = one.title + (f": {one.note}" if one.note else "")
        table = Table(title=Text(title), title_justify="left")
        for heading in one.headings:
            table.add_column(heading, overflow="fold")
        for row in one.rows:
            table.add_row(*row)
        print_rich(table)
    for warning in health.warnings:
        typer.echo(f"warning: {warning}")
    if markdown is not None:
        typer.echo(f"report: {markdown}")


def _markdown(health: TrainingHealth, tables: list[ReportTable]) -> str:
    """A report as a Markdown page."""
    from avsbench_harness.leaderboard.formatting import escape, table_head, table_line

    spec = health.run.spec
    recipe = spec.recipe
    settings = {
        "method": f"{spec.method}, variant {spec.variant}, {spec.code}",
        "task and data": f"{spec.task}, {spec.data.name}",
        "preset": f"{spec.preset}, seed {spec.seed}",
        "backbone": f"{spec.backbone}, {'pretrained' if spec.backbone_weights else 'random weights'}",
        "audio encoder": f"{spec.audio.encoder}, {'trained' if spec.audio.trained else 'frozen'}",
        "input": f"{recipe.image_size} pixels, {recipe.batch_size} clips per step, {recipe.precision}",
        "optimiser": f"{recipe.optimizer.name}, learning rate {recipe.optimizer.lr:g} (backbone: x "
        f"{recipe.optimizer.backbone_lr_scale:g}), weight decay {recipe.optimizer.weight_decay:g}",
        "warm-up": f"{recipe.schedule.warmup_steps} steps",
        "gradient clipping": "none" if recipe.clip_norm is None else f"norm {recipe.clip_norm:g}",
        "options": ", ".join(f"{name} {value}" for name, value in recipe.options.items()) or "defaults",
    }
    lines = [f"# Training health: {escape(spec.method)}", "", *table_head(["setting", "value"])]
    lines += [table_line([name, escape(value)]) for name, value in settings.items()]
    for table in tables:
        lines += ["", f"## {escape(table.title)}", ""]
        lines += [escape(table.note), ""] if table.note else []
        lines += table_head(list(map(escape, table.headings)))
        lines += [table_line(list(map(escape, row))) for row in table.rows]
    lines += ["", "## Warnings", ""]
    lines += [f"- {escape(warning)}" for warning in health.warnings] or ["None."]
    return "\n".join(lines) + "\n"


@app.command()
def tokens(
    run: Annotated[
        str, typer.Argument(help="A trained run: its id in --out, a unique prefix, or its folder.")
    ],
    split: Annotated[str, typer.Option("--split", help="test, val or train.")] = "test",
    projection: Annotated[
        str, typer.Option("--projection", help="pca, or tsne (needs the extra 'inspect').")
    ] = "pca",
    classes: Annotated[
        str | None, typer.Option("--classes", help="Use only clips of these classes, such as man,guitar.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", help="File to write (.png, .pdf, .svg); defaults to a PNG in the run's folder."
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="Folder of the method, if it is not installed.")
    ] = None,
    data: DataOption = None,
    out: Annotated[Path, typer.Option("--out", help="Folder with runs/.")] = Path(),
    json: JsonOption = False,
) -> None:
    """Plot the audio tokens of a split by class, with markers for single- and multi-source clips.

    \b
    Examples:
      avsb inspect tokens RUN-ID --data AVSBench
      avsb inspect tokens runs/RUN-ID --projection tsne --classes man,guitar,piano --plot tokens.png
    """
    from avsbench_harness.analysis.plots import save, token_scatter
    from avsbench_harness.analysis.token_projection import project_tokens
    from avsbench_harness.analysis.tokens import audio_tokens
    from avsbench_harness.launch.open_run import open_run
    from avsbench_harness.tasks import get_split

    part = get_split(split)
    trained = open_run(run, out, data=data, method=method)
    wanted = [name.strip() for name in classes.split(",")] if classes else []
    points = project_tokens(audio_tokens(trained, part), projection, wanted)
    path = plot or trained.folder / f"tokens-{part}-{projection}.png"
    save(token_scatter(points, f"{trained.id}, {part} ({projection})"), path, dots_per_inch=150)
    if json:
        print_json(
            {
                "run": trained.id,
                "split": part,
                "projection": projection,
                "plot": str(path),
                "points": [point.to_json() for point in points],
            }
        )
    else:
        typer.echo(f"{len(points)} tokens: {path}")
