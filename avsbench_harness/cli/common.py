"""Shared parts of the commands: option types, the options that describe a run, and output as text or JSON."""

from __future__ import annotations

import functools
import inspect
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_type_hints

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from avsbench_harness.engine.run import Run

logger = logging.getLogger(__name__)


#: Option types that several commands share.
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
JobsOption: TypeAlias = Annotated[
    int | None, typer.Option("--jobs", min=1, help="Processes; default: one per core.")
]
RequiredTaskOption: TypeAlias = Annotated[str, typer.Option("--task", help="s4, ms3 or avss.")]
DataOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="AVSBench folder, mini (AVS-Mini) or synthetic; defaults to AVSB_DATA_DIR, else to mini.",
    ),
]
SolutionOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--solution", help="Ground truth from `avsb data solution`; defaults to --data, else to the cache."
    ),
]
TruthDataOption: TypeAlias = Annotated[
    Path | None, typer.Option("--data", help="AVSBench folder, instead of --solution.")
]
BackboneOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        help="r50, pvt, swin_t, lite0 or any timm model with four feature stages; defaults to lite0 with the "
        "preset mini, else to r50.",
    ),
]
TaskOption: TypeAlias = Annotated[str, typer.Option("--task", help="s4, ms3 or avss.")]
VariantOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--variant",
        help="released (the published code) or paper; defaults to the first variant of the method.",
    ),
]
PresetOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="Named recipe: full, mini or smoke. Defaults to full; on generated data to mini with backbone "
        "lite0, else to smoke.",
    ),
]
RecipeOption: TypeAlias = Annotated[
    Path | None, typer.Option("--recipe", help="YAML file with overrides of the preset.")
]
SetOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one key of the recipe, such as optimizer.lr=1.0e-4; repeatable.",
    ),
]
PretrainedOption: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--pretrained/--no-pretrained", help="Initialise the backbone from ImageNet weights, or at random."
    ),
]
WeightsOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--weights",
        "--from-checkpoint",
        metavar="WEIGHTS",
        help="Do not train: predict with these weights (published weights, a run, or a weights file).",
    ),
]
InitOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--init", metavar="WEIGHTS", help="Initialise training from these weights, of any task."),
]
SeedOption: TypeAlias = Annotated[int, typer.Option("--seed", help="Random seed.")]
OutOption: TypeAlias = Annotated[
    Path, typer.Option("--out", help="Folder for runs/, submissions/ and results/.")
]
DeviceOption: TypeAlias = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda or cuda:N; defaults to CUDA if available.")
]
WorkersOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--workers", min=0, help="DataLoader worker processes; defaults to half of the cores, at most 8."
    ),
]


def _plan_run(
    method: Annotated[
        str | None, typer.Option("--method", help="Name, alias or folder of a method; see `avsb methods`.")
    ] = None,
    backbone: BackboneOption = None,
    task: Annotated[str | None, typer.Option("--task", help="s4, ms3 or avss; defaults to s4.")] = None,
    variant: VariantOption = None,
    data: DataOption = None,
    preset: PresetOption = None,
    recipe: RecipeOption = None,
    assignments: SetOption = None,
    pretrained: PretrainedOption = None,
    weights: WeightsOption = None,
    init: InitOption = None,
    seed: SeedOption = 0,
    out: OutOption = Path(),
    device: DeviceOption = None,
    workers: WorkersOption = None,
) -> Run:
    """Plan the run that the options describe.

    Without ``method``, the network is that of the given weights.
    """
    from avsbench_harness.errors import UsageError
    from avsbench_harness.launch.defaults import default_backbone
    from avsbench_harness.launch.recorded_run import weight_facts
    from avsbench_harness.launch.request import Request, plan, warning
    from avsbench_harness.method import get_method

    if method is None and (named := weights or init) is not None:
        facts = weight_facts(named, out, task=task, backbone=backbone, variant=variant)
        method, backbone = facts["method"], backbone or facts["backbone"]
        task, variant = task or facts["task"], variant or facts["variant"]
    if method is None:
        raise UsageError("Missing option '--method'; `avsb methods` lists the methods.")
    planned = plan(
        Request(
            method=method,
            backbone=backbone or ("r50" if weights else default_backbone(get_method(method), preset, data)),
            task=task or "s4",
            variant=variant,
            data=data,
            preset=preset,
            recipe=recipe,
            assignments=tuple(assignments or ()),
            pretrained=pretrained,
            weights=weights,
            init=init,
            seed=seed,
            out=out,
            device=device,
            workers=workers,
        )
    )
    line = warning(planned, data)
    if line:
        logger.info(line)
    return planned


_NPROC = inspect.Parameter(
    "nproc",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        int | None,
        typer.Option("--nproc", help="Number of processes on this machine that share the run (torchrun)."),
    ],
)


_RECORDED = inspect.Parameter(
    "recorded",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run instead of the options that describe one: its id in --out, a unique prefix of it, or "
            "its folder.",
        ),
    ],
)


def takes_run(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that describe a run to a command, which receives the planned run as first argument."""
    return _with_run(command, None)


def accepts_run(how: Literal["open", "plan"]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """As :func:`takes_run`; a run that was made may be named instead of the options.

    Args:
        how: ``open`` the named run as it is, or ``plan`` it again from its spec, to train it.
    """
    return functools.partial(_with_run, recorded=how)


def _with_run(command: Callable[..., None], recorded: Literal["open", "plan"] | None) -> Callable[..., None]:
    shared = _parameters(_plan_run)
    own = _parameters(command)[1:]

    @functools.wraps(command)
    def wrapped(nproc: int | None, **values: Any) -> None:
        from avsbench_harness import distributed

        if nproc is not None and nproc != 1:
            from avsbench_harness.launch.torchrun import torchrun

            torchrun(nproc, _without_nproc(sys.argv[1:]))
            return
        with distributed.process_group():
            options = {parameter.name: values.pop(parameter.name) for parameter in shared}
            name = values.pop("recorded", None)
            with distributed.main_process_first():
                if name is None:
                    run = _plan_run(**options)
                else:
                    from avsbench_harness.launch.recorded_run import recorded_run

                    run = recorded_run(name, options, plan_again=recorded == "plan")
            command(run, **values)

    parameters = [*([_RECORDED] if recorded else []), *shared, *own, _NPROC]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del wrapped.__wrapped__  # typer would read the signature of the wrapped function
    return wrapped


def _without_nproc(arguments: Sequence[str]) -> list[str]:
    """Return a command line without the ``--nproc`` option."""
    rest = iter(arguments)
    kept = []
    for argument in rest:
        if argument == "--nproc":
            next(rest, None)
        elif not argument.startswith("--nproc="):
            kept.append(argument)
    return kept


def print_json(value: Any) -> None:
    """Print one JSON value to stdout; as ASCII if the terminal's encoding is not a Unicode one.

    Characters that a terminal does not print, such as control characters and marks of direction, are escaped.
    """
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(value, indent=2, ensure_ascii=not unicode)
    if not text.replace("\n", "").isprintable():
        text = "".join(
            mark if mark.isprintable() or mark == "\n" else json.dumps(mark)[1:-1] for mark in text
        )
    typer.echo(text)


def print_rich(*values: RenderableType) -> None:
    """Print tables and text to stdout; brackets and control characters in plain strings are neutralised."""
    from rich.console import Console

    from avsbench_harness.errors import printable

    class PlainConsole(Console):
        """Renders every plain string, also of a table's cell, without control characters."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable(text), **options)

    console = PlainConsole(markup=False, highlight=False)
    for value in values:
        console.print(value)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of a function as keyword-only parameters with evaluated annotations."""
    namespace = {**function.__globals__, "Run": object}
    hints = get_type_hints(function, namespace, include_extras=True)
    return [
        parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(function).parameters.values()
    ]
