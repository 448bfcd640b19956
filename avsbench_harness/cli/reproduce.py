"""``avsb reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsbench_harness.cli.common import DataOption, JsonOption, print_json, print_rich


def reproduce(
    record: Annotated[Path, typer.Argument(help="A record, results/<run>.json.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the repetition's runs/, submissions/ and results/.")
    ] = Path("reproduced"),
    data: DataOption = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda or cuda:N.")] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="Folder of a method that is not installed.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Carry out a record's spec again here, and say metric by metric what came out.

    Ends with 1 if a metric is different. What differs in environment, weights or data is listed.

    \b
    Examples:
      avsb reproduce results/s4-combo-pvt-s0-0123456789.json --data AVSBench
    """
    from rich.table import Table

    from avsbench_harness.errors import AvsbError
    from avsbench_harness.launch.reproduce import reproduce as repeat

    done = repeat(record, out, data, device, method)
    different = any(verdict.word == "different" for verdict in done.verdicts)
    if json:
        print_json(
            {
                "record": done.then.run_id,
                "again": done.now.run_id,
                "metrics": [{**vars(verdict), "verdict": verdict.word} for verdict in done.verdicts],
                "differences": list(done.differences),
            }
        )
    else:
        table = Table("protocol", "metric", "then", "now", "verdict")
        for verdict in done.verdicts:
            values = ["n/a" if value is None else f"{value:.6f}" for value in (verdict.then, verdict.now)]
            table.add_row(verdict.protocol, verdict.metric, *values, verdict.word)
        print_rich(table)
        for difference in done.differences:
            typer.echo(f"differs: {difference}")
    if different:
        raise typer.Exit(AvsbError.exit_code)
