"""What the commands share: the options that describe a run, and printing for people or as JSON."""

from __future__ import annotations

import functools
import inspect
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_type_hints

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from avsbench_harness.engine.run import Run

logger = logging.getLogger(__name__)


JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
DataOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--data", help="Folder with AVSBench; else AVSB_DATA_DIR; else a small synthetic set."),
]
SolutionOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--solution", help="Ground truth of `avsb data solution`; else --data, else the cache."),
]
TruthDataOption: TypeAlias = Annotated[
    Path | None, typer.Option("--data", help="Folder with AVSBench, instead of --solution.")
]
TaskOption: TypeAlias = Annotated[str, typer.Option("--task", help="s4, ms3 or avss.")]


def _describe_run(
    method: Annotated[
        str, typer.Option("--method", help="Name, alias or folder of a method; `avsb methods` lists them.")
    ],
    backbone: Annotated[
        str, typer.Option("--backbone", help="r50, pvt, swin_t or any timm model with four feature stages.")
    ] = "r50",
    task: TaskOption = "s4",
    variant: Annotated[
        str | None,
        typer.Option("--variant", help="released (as the published code) or paper; else the method's first."),
    ] = None,
    data: DataOption = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", help="The method's recipe: full, or smoke, the default without data."),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="YAML file with changes to the recipe.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One change to the recipe, such as optimizer.lr=1.0e-4."
        ),
    ] = None,
    pretrained: Annotated[
        bool | None,
        typer.Option("--pretrained/--no-pretrained", help="ImageNet weights for the backbone or none."),
    ] = None,
    from_checkpoint: Annotated[
        str | None,
        typer.Option(
            "--weights",
            "--from-checkpoint",
            metavar="WEIGHTS",
            help="Do not train: predict with an imported checkpoint, a run, or its weights file.",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option("--init", metavar="WEIGHTS", help="Start training from such weights, of any task."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 0,
    out: Annotated[Path, typer.Option("--out", help="Folder for runs/, submissions/ and results/.")] = Path(),
    device: Annotated[
        str | None, typer.Option("--device", help="cpu, cuda or cuda:N; else CUDA where there is one.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes that decode data beside this one.")
    ] = None,
) -> Run:
    """The run that the options describe."""
    from avsbench_harness.launch.request import Request, plan, warning

    planned = plan(
        Request(
            method=method,
            backbone=backbone,
            task=task,
            variant=variant,
            data=data,
            preset=preset,
            recipe=recipe,
            assignments=tuple(assignments or ()),
            pretrained=pretrained,
            weights=from_checkpoint,
            init=init,
            seed=seed,
            out=out,
            device=device,
            workers=workers,
        )
    )
    line = warning(planned)
    if line:
        logger.info(line)
    return planned


_NPROC = inspect.Parameter(
    "nproc",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        int | None,
        typer.Option("--nproc", help="Processes on this machine that share the run, through torchrun."),
    ],
)


def describes_run(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that describe a run; it is called with the planned run first."""
    shared = _parameters(_describe_run)
    own = _parameters(command)[1:]

    @functools.wraps(command)
    def wrapped(nproc: int | None, **values: Any) -> None:
        from avsbench_harness import distributed

        if nproc is not None and nproc != 1:
            from avsbench_harness.launch.torchrun import torchrun

            torchrun(nproc, _without_nproc(sys.argv[1:]))
            return
        with distributed.process_group():
            described = {parameter.name: values.pop(parameter.name) for parameter in shared}
            with distributed.main_process_first():
                run = _describe_run(**described)
            command(run, **values)

    parameters = [*shared, *own, _NPROC]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del wrapped.__wrapped__  # typer would look through it
    return wrapped


def _without_nproc(arguments: Sequence[str]) -> list[str]:
    """A command line without the option that asks for several processes."""
    rest = iter(arguments)
    kept = []
    for argument in rest:
        if argument == "--nproc":
            next(rest, None)
        elif not argument.startswith("--nproc="):
            kept.append(argument)
    return kept


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_rich(*values: RenderableType) -> None:
    """Tables and text for people on stdout; brackets in plain strings are text, not markup."""
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    for value in values:
        console.print(value)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """A function's parameters as keywords, with evaluated annotations."""
    namespace = {**function.__globals__, "Run": object}
    hints = get_type_hints(function, namespace, include_extras=True)
    return [
        parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(function).parameters.values()
    ]
