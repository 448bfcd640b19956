"""``avsb challenge``: competitions with hidden labels."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from avsbench_harness.cli import challenge_init, challenge_teams
from avsbench_harness.cli.challenge_common import ChallengeOption, DatabaseOption, opened, parse_fields
from avsbench_harness.cli.common import JsonOption, print_json, print_rich
from avsbench_harness.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from avsbench_harness.host.board import Board
    from avsbench_harness.host.snapshot import Refusal, Submission

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Run competitions with hidden labels (docs/hosting.md)."
)
bundle = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Write bundles.")
app.command()(challenge_init.init)
app.add_typer(challenge_teams.app, name="team")
app.add_typer(bundle, name="bundle")

FieldOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--field", metavar="NAME=TEXT", help="A required field, such as paper=URL; repeatable."),
]


@bundle.command()
def participants(
    out: Annotated[Path, typer.Option("--out", help="Folder to write; it must not exist or be empty.")],
    challenge: ChallengeOption = Path(),
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Pack what participants get: clips, labels of train and val, a sample submission, rules and a guide.

    \b
    Examples:
      avsb challenge bundle participants --challenge avs2027 --out avs2027-participants
    """
    from avsbench_harness.host.participants import write_participants

    with opened(challenge, database) as competition:
        clips = write_participants(competition, out)
    if json:
        print_json({"out": str(out), "clips": clips})
    else:
        typer.echo(f"{clips} clips, a sample submission, rules and a guide in {out}")


@bundle.command()
def codabench(
    out: Annotated[Path, typer.Option("--out", help="The zip file to write.")],
    docker_image: Annotated[
        str, typer.Option("--docker-image", help="Image with avsbench-harness, in which Codabench scores.")
    ],
    challenge: ChallengeOption = Path(),
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Write a Codabench competition bundle. It holds the ground truth: upload it, do not publish it.

    \b
    Examples:
      avsb challenge bundle codabench --challenge avs2027 --out codabench.zip --docker-image me/avsb:0.1
    """
    from avsbench_harness.host.codabench import write_codabench

    with opened(challenge, database) as competition:
        write_codabench(competition, out, docker_image)
    if json:
        print_json({"out": str(out), "docker_image": docker_image})
    else:
        typer.echo(f"Codabench bundle: {out}; it holds the ground truth")


@app.command()
def submit(
    submission: Annotated[Path, typer.Argument(help="Submission (.npz).")],
    team: Annotated[str, typer.Option("--team", help="Name of the team.")],
    inbox: Annotated[Path, typer.Option("--inbox", help="Inbox of the competition, a folder.")] = Path(
        "inbox"
    ),
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="File with the team's token; default: AVSB_CHALLENGE_TOKEN."),
    ] = None,
    selected: Annotated[
        bool, typer.Option("--selected", help="Select this submission for the final ranking.")
    ] = False,
    field: FieldOption = None,
    json: JsonOption = False,
) -> None:
    """Hand in a submission to an inbox. The token signs it and is not written.

    \b
    Examples:
      avsb challenge submit mine.npz --team "Team A" --inbox avs2027/inbox --token-file token.txt
      avsb challenge submit mine.npz --team "Team A" --inbox avs2027/inbox --field paper=none --selected
    """
    from avsbench_harness.host.inbox import read_token
    from avsbench_harness.host.inbox import submit as hand_in

    fields = parse_fields(field or ())
    ticket = hand_in(inbox, submission, team, read_token(token_file), fields, selected=selected)
    if json:
        print_json({"ticket": ticket})
    else:
        typer.echo(f"handed in with ticket {ticket}; its receipt will be receipts/{ticket}.json")


@app.command()
def ingest(
    challenge: ChallengeOption = Path(),
    database: DatabaseOption = None,
    inbox: Annotated[
        Path | None, typer.Option("--inbox", help="Another inbox than that of the competition.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Score again what failed before.")] = False,
    json: JsonOption = False,
) -> None:
    """Take in everything new in the inbox, score it, and write receipts.

    Run it as often as you like, also several at once; a killed one is continued by the next.

    \b
    Examples:
      avsb challenge ingest --challenge avs2027
      avsb challenge ingest --challenge avs2027 --retry --json
    """
    from avsbench_harness.host.inbox import ingest as take_in
    from avsbench_harness.host.receipts import receipt

    with opened(challenge, database) as competition:
        if retry:
            competition.retry()
        result = take_in(competition, inbox)
        snapshot = competition.snapshot()
    outcomes: dict[str, Submission | Refusal | None] = {
        one.ticket: snapshot.outcome(one.ticket) for one in [*result.arrived, *result.scored]
    }
    receipts = [receipt(snapshot, one) for one in outcomes.values() if one is not None]
    if json:
        print_json(receipts)
        return
    for one in receipts:
        typer.echo(_sentence(one))
    typer.echo(f"{len(result.arrived)} new, {len(result.scored)} scored")


@app.command()
def board(
    challenge: ChallengeOption = Path(),
    database: DatabaseOption = None,
    part: Annotated[str, typer.Option("--part", help="public, or private after the reveal.")] = "public",
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the boards as a page into this folder.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print the public board, or the private one after the reveal.

    \b
    Examples:
      avsb challenge board --challenge avs2027
      avsb challenge board --challenge avs2027 --html site
      avsb challenge board --challenge avs2027 --part private --json
    """
    from avsbench_harness.host.board import challenge_board

    with opened(challenge, database) as competition:
        found = challenge_board(competition, part)
        if html is not None:
            from avsbench_harness.host.pages import write_board

            typer.echo(f"written: {write_board(competition, html)}", err=True)
    _print_board(found, json)


@app.command()
def reveal(
    challenge: ChallengeOption = Path(),
    database: DatabaseOption = None,
    early: Annotated[bool, typer.Option("--early", help="Before the end of the last phase.")] = False,
    json: JsonOption = False,
) -> None:
    """Publish the private board, once, with the change of each rank.

    \b
    Examples:
      avsb challenge reveal --challenge avs2027
    """
    from avsbench_harness.host.board import reveal as publish

    with opened(challenge, database) as competition:
        found = publish(competition, early=early)
    _print_board(found, json)


@app.command()
def rescore(
    challenge: ChallengeOption = Path(),
    database: DatabaseOption = None,
    solution: Annotated[
        Path | None,
        typer.Option("--solution", help="Fixed ground truth; default: packed again from the data set."),
    ] = None,
    note: Annotated[str, typer.Option("--note", help="Reason, for the log.")] = "",
    json: JsonOption = False,
) -> None:
    """Score everything again after a fixed label, protocol or metric; both versions are kept.

    Protocol and metrics are those of challenge.yaml. An interrupted rescoring is continued.

    \b
    Examples:
      avsb challenge rescore --challenge avs2027 --note "masks of three clips fixed"
    """
    from avsbench_harness.host.board import moved_rows, public_board
    from avsbench_harness.host.receipts import write_receipts
    from avsbench_harness.host.scoring_queue import score_pending

    with opened(challenge, database) as competition:
        competition.add_version(solution, note)
        newest = competition.snapshot().versions[-1].number
        if newest == 1:
            raise UsageError("Nothing has changed: labels, protocol and metrics are those of the scores.")
        for _ in score_pending(competition):
            pass
        write_receipts(competition)
        snapshot = competition.snapshot()
        before = public_board(competition.definition, snapshot, newest - 1)
        moved = moved_rows(before, public_board(competition.definition, snapshot, newest))
    if json:
        print_json({"version": newest, "moved": moved})
        return
    typer.echo(f"version {newest}: {len(moved)} rows of the public board differ from version {newest - 1}")
    for row in moved:
        before_after = [_value(row["before"]), _value(row["after"])]
        typer.echo(
            f"{row['team']}: rank {row['rank_before']} -> {row['rank_after']}, {' -> '.join(before_after)}"
        )


@app.command()
def audit(
    challenge: ChallengeOption = Path(),
    database: DatabaseOption = None,
    sample: Annotated[int, typer.Option("--sample", min=0, help="Number of scores to recompute.")] = 3,
    log: Annotated[
        Path | None, typer.Option("--log", help="Verify an exported log instead, without the competition.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Verify log, stored files, private scores and receipts, and recompute a sample of scores.

    \b
    Examples:
      avsb challenge audit --challenge avs2027 --sample 10
      avsb challenge audit --log log.jsonl
    """
    from avsbench_harness.host.audit import audit as check
    from avsbench_harness.host.audit import audit_export

    if log is not None:
        result = audit_export(log)
    else:
        with opened(challenge, database, strict=False) as competition:
            result = check(competition, sample=sample)
    if json:
        recomputed = [list(pair) for pair in result.recomputed]
        print_json({"entries": result.entries, "recomputed": recomputed, "faults": result.faults})
    else:
        for fault in result.faults:
            typer.echo(fault)
        typer.echo(
            f"{result.entries} log entries, {len(result.recomputed)} scores recomputed, "
            f"{len(result.faults)} faults"
        )
    if result.faults:
        raise typer.Exit(1)


@app.command()
def log(
    out: Annotated[Path, typer.Option("--out", help="File to write (JSON lines).")],
    challenge: ChallengeOption = Path(),
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Export the hash-chained log as JSON lines. It has no token, contact or private score before the reveal.

    \b
    Examples:
      avsb challenge log --challenge avs2027 --out log.jsonl
    """
    from avsbench_harness.files import write_text
    from avsbench_harness.host.log import export

    with opened(challenge, database) as competition:
        entries = competition.entries()
    write_text(out, export(entries))
    if json:
        print_json({"out": str(out), "entries": len(entries), "digest": entries[-1].digest})
    else:
        typer.echo(f"{len(entries)} entries in {out}; last digest {entries[-1].digest}")


@app.command()
def serve(
    challenge: ChallengeOption = Path(),
    database: DatabaseOption = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 for a free one.")] = 8000,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Scoring processes; 0 leaves the scoring to ingest.")
    ] = 1,
    https: Annotated[
        bool, typer.Option("--https", help="Behind a proxy with HTTPS: cookies are sent over HTTPS alone.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Serve upload page, submissions, board and rules of a competition.

    Put it behind a proxy with HTTPS; it stops with Ctrl-C.

    \b
    Examples:
      avsb challenge serve --challenge avs2027 --port 8000
      avsb challenge serve --challenge avs2027 --https --workers 2
    """
    from avsbench_harness.host.server import Settings, run_server

    def announce(address: str) -> None:
        if json:
            print_json({"address": address})
        else:
            typer.echo(f"serving {address}")
        sys.stdout.flush()

    with opened(challenge, database) as competition:
        run_server(competition, Settings(workers=workers, https=https), host, port, announce)


def _sentence(receipt: dict[str, Any]) -> str:
    team = receipt["team"] or "unknown team"
    name = f"submission {receipt['submission']}" if "submission" in receipt else receipt["ticket"]
    text = f"{name} of {team}: {receipt['status']}"
    if receipt["reason"]:
        text += f" ({receipt['reason']})"
    if receipt.get("public"):
        metrics = receipt["public"]["metrics"].items()
        text += ", " + ", ".join(f"{metric} {_value(value)}" for metric, value in metrics)
    return text


def _value(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def _print_board(board: Board, json: bool) -> None:
    if json:
        print_json(board.to_json())
        return
    clips = f", {board.clips} clips" if board.clips else ""
    print_rich(f"{board.title}: {board.part} board, {board.protocol}{clips}", _table(board))


def _table(board: Board) -> Table:
    from rich.table import Table

    private = board.part == "private"
    table = Table("rank", *(["change"] if private else []), "team", "method", *board.metrics, "95 % interval")
    for row in board.rows:
        interval = row.intervals[board.metrics[0]]
        change = [f"{row.change:+d}" if row.change else "="] if private else []
        table.add_row(
            str(row.rank),
            *change,
            row.team,
            row.method,
            *(_value(row.metrics[metric]) for metric in board.metrics),
            "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}",
        )
    return table
