"""``avsb leaderboard``: tables from records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsbench_harness.cli.common import DataOption, JsonOption, print_json, print_rich

if TYPE_CHECKING:
    from avsbench_harness.data.avsbench.layout import Dataset
    from avsbench_harness.results.folder import Results
    from avsbench_harness.results.record import Record

#: Formats of the output.
FORMATS = ("table", "md", "csv", "latex", "json")


def leaderboard(
    results: Annotated[Path, typer.Option("--results", help="Folder with the records.")] = Path("results"),
    backbone: Annotated[
        str | None,
        typer.Option("--backbone", help="Print only rows with this backbone; do not write LEADERBOARD.md."),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="Format of the output: table, md, csv, latex or json.")
    ] = "table",
    reported: Annotated[
        bool, typer.Option("--reported", help="Also print the values that the papers report.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; exit with 1 if a page differs from the records."),
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write a static HTML site to this folder.")
    ] = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Write LEADERBOARD.md from the records in a folder and print the measured rows.

    Scores are in percent. --format md prints the content of LEADERBOARD.md. Records of `avsb robustness` give
    a second page, ROBUSTNESS.md. The HTML site shows clips of runs whose submission (submissions/ next to the
    records) and data set are available.

    \b
    Examples:
      avsb leaderboard
      avsb leaderboard --reported
      avsb leaderboard --check
      avsb leaderboard --html site --data AVSBench
      avsb leaderboard --backbone pvt --format latex
    """
    from avsbench_harness.data.avsbench.tree import data_root
    from avsbench_harness.leaderboard.markdown import write_page
    from avsbench_harness.results.folder import read_results

    _check_options(results, form, reported, check and bool(html or backbone or form != "table"))
    if check:
        _check(results)
        return
    if html:
        data_root(data)  # a missing data root is refused before any work
    content = read_results(results)
    page = None if backbone else write_page(content)
    site = _write_site(content, html, data) if html else None
    if json:
        _print(content, backbone, form, {"page": page, "site": site})
    elif form == "table":
        _print_table(content, backbone, reported)
    elif form == "md" and page is not None:
        typer.echo(page.read_text(encoding="utf-8"), nl=False)
    else:
        _print(content, backbone, form, None)
    _report(content, page, site)


def _report(results: Results, *written: Path | None) -> None:
    """Print refused files and written paths to stderr."""
    from avsbench_harness.errors import one_line

    for name, reason in results.refusals:
        typer.echo(f"refused: {one_line(name)}: {reason}", err=True)
    for path in filter(None, written):
        typer.echo(f"\nwritten: {path}", err=True)


def _check_options(results: Path, form: str, reported: bool, writes: bool) -> None:
    """Raise an error for an unknown format, options that exclude each other, or a missing folder."""
    from avsbench_harness.errors import MissingDataError, UsageError, unknown

    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if reported and form != "table":
        raise UsageError("--reported belongs to the table in the terminal; remove --format.")
    if writes:
        raise UsageError("--check only checks LEADERBOARD.md; remove --html, --backbone and --format.")
    if not results.is_dir():
        raise MissingDataError(f"There is no folder {results}; create it with `avsb run`, or pass --results.")


def _check(results: Path) -> None:
    from avsbench_harness.errors import AvsbError
    from avsbench_harness.leaderboard.markdown import PAGE, stale_pages

    for name in stale_pages(results):
        raise AvsbError(f"{results / name} differs from the records; update it with `avsb leaderboard`.")
    typer.echo(f"{results / PAGE} is up to date.")


def _write_site(results: Results, site: Path, data: Path | None) -> Path:
    from avsbench_harness.ablation.site_tables import site_tables
    from avsbench_harness.launch.resolve_solution import data_of
    from avsbench_harness.leaderboard.site import build_site

    known: dict[tuple[str, str | None], Dataset | None] = {}

    def find_data(record: Record) -> Dataset | None:
        key = (record.task, record.data.fingerprint)
        if key not in known:
            known[key] = data_of(record, data)
        return known[key]

    return build_site(results, site, find_data, site_tables(results))


def _print_table(results: Results, backbone: str | None, reported: bool) -> None:
    """Print the tables for the terminal."""
    from avsbench_harness.leaderboard.markdown import select_backbone
    from avsbench_harness.leaderboard.tables import build_tables, unplaced_failures
    from avsbench_harness.leaderboard.terminal import terminal_tables

    records = select_backbone(results.records, backbone)
    tables = build_tables(records, results)
    failed = unplaced_failures(records, tables)
    print_rich(*terminal_tables(tables, failed, reported=reported, backbone=backbone))


def _print(results: Results, backbone: str | None, form: str, written: dict[str, Path | None] | None) -> None:
    """Print the tables in a format, or with the written paths as JSON if ``written`` is given."""
    from avsbench_harness.leaderboard.export import to_csv, to_json, to_latex
    from avsbench_harness.leaderboard.markdown import render, select_backbone
    from avsbench_harness.leaderboard.tables import build_tables

    if written is None and form == "md":
        typer.echo(render(results, backbone), nl=False)
        return
    tables = build_tables(select_backbone(results.records, backbone), results)
    if written is not None:
        paths = {name: str(path) if path else None for name, path in written.items()}
        refused = [{"file": name, "reason": reason} for name, reason in results.refusals]
        print_json({**paths, "tables": to_json(tables), "refused": refused})
    elif form == "json":
        print_json(to_json(tables))
    elif form == "csv":
        typer.echo(to_csv(tables), nl=False)
    else:
        typer.echo(to_latex(tables), nl=False)
