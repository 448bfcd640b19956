"""``avsb reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsbench_harness.cli.common import DataOption, DeviceOption, JsonOption, print_json, print_rich


def reproduce(
    record: Annotated[
        str,
        typer.Argument(help="Record of a run, results/<run>.json, or the run's id or a unique prefix of it."),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder for runs/, submissions/ and results/ of the rerun.")
    ] = Path("reproduced"),
    data: DataOption = None,
    device: DeviceOption = None,
    method: Annotated[
        str | None, typer.Option("--method", help="Folder of the method, if it is not installed.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Rerun a recorded experiment and compare its metrics.

    The exit code is 1 if a metric is different. Differences in environment, weights and data are listed.
    Results on the CPU depend on the number of threads: set OMP_NUM_THREADS to that of the record for the same
    bits.

    \b
    Examples:
      avsb reproduce results/s4-combo-pvt-s0-0123456789.json --data AVSBench
      avsb reproduce s4-combo-pvt-s0-01 --data AVSBench
    """
    from rich.table import Table

    from avsbench_harness.errors import AvsbError
    from avsbench_harness.launch.reproduce import reproduce as rerun
    from avsbench_harness.launch.run_files import find_record

    result = rerun(find_record(record), out, data, device, method)
    different = any(verdict.word == "different" for verdict in result.verdicts)
    if json:
        print_json(
            {
                "record": result.then.run_id,
                "again": result.now.run_id,
                "metrics": [{**vars(verdict), "verdict": verdict.word} for verdict in result.verdicts],
                "differences": list(result.differences),
            }
        )
    else:
        table = Table("protocol", "metric", "then", "now", "verdict")
        for verdict in result.verdicts:
            values = ["n/a" if value is None else f"{value:.6f}" for value in (verdict.then, verdict.now)]
            table.add_row(verdict.protocol, verdict.metric, *values, verdict.word)
        print_rich(table)
        for difference in result.differences:
            typer.echo(f"differs: {difference}")
    if different:
        raise typer.Exit(AvsbError.exit_code)
