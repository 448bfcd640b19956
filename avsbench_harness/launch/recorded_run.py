"""Runs that were made, instead of the options that describe them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from avsbench_harness.engine.run import Run, RunSpec
from avsbench_harness.errors import UsageError
from avsbench_harness.files import read_json
from avsbench_harness.launch.device import default_workers, run_device
from avsbench_harness.launch.open_run import open_run
from avsbench_harness.launch.reproduce import recorded_request
from avsbench_harness.launch.request import plan
from avsbench_harness.run_names import find_run
from avsbench_harness.weights.sources import find_weights

#: Options that say where and with what a run is executed, not what it is.
_ALLOWED = ("method", "data", "out", "device", "workers")


def recorded_run(name: str, options: Mapping[str, Any], *, plan_again: bool) -> Run:
    """The run that a user names.

    Args:
        name: its folder, id or a unique prefix of it.
        options: of the command by parameter name; ``method`` is the folder of a method that is not installed.
        plan_again: plan a run of the same spec in this environment, to train it again; else open it as it is.

    Raises:
        UsageError: there is no such run or several, or an option describes another run.
        MissingDataError: weights or data of the run are not available.
    """
    given = [
        "set" if key == "assignments" else key
        for key, value in options.items()
        if key not in _ALLOWED and (value if key in ("seed", "assignments") else value is not None)
    ]
    if given:
        raise UsageError(f"--{given[0]} describes another run than {name}; leave it out.")
    out: Path = options["out"]
    if not plan_again:
        run = open_run(name, out, data=options["data"], method=options["method"])
        workers = options["workers"]
        return replace(
            run,
            device=run_device(options["device"], run.recipe),
            workers=default_workers() if workers is None else workers,
        )
    folder = find_run(name, out).resolve()
    spec = RunSpec.parse(read_json(folder / "spec.json"), str(folder / "spec.json"))
    request = recorded_request(spec, (out, folder.parents[1]), options["method"])
    return plan(replace(request, **{key: options[key] for key in _ALLOWED if key != "method"}))


def weight_facts(asked: str, out: Path, **wanted: str | None) -> Mapping[str, str]:
    """Method, variant, task and backbone of the weights that ``--weights`` or ``--init`` names.

    Args:
        asked: see :func:`.find_weights`.
        out: the folder that holds ``runs/``.
        wanted: those that the user gives; they decide if several stored weights match.

    Raises:
        UsageError: there are no such weights, or nothing is known of them.
    """
    source = find_weights(asked, out, {key: value for key, value in wanted.items() if value is not None})
    if not source.facts:
        raise UsageError(
            f"{asked} does not say which network it is for; pass --method, --backbone and --task."
        )
    return source.facts
