"""``avsb challenge team``: teams and their tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsbench_harness.cli.challenge_common import ChallengeOption, DatabaseOption, opened
from avsbench_harness.cli.common import JsonOption, print_json, print_rich

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Add, rename and list teams.")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name of the team.")],
    challenge: ChallengeOption = Path(),
    database: DatabaseOption = None,
    contact: Annotated[
        str, typer.Option("--contact", help="Address of the team; it stays with the host.")
    ] = "",
    json: JsonOption = False,
) -> None:
    """Add a team and print its token, which is shown once: only its hash is stored.

    \b
    Examples:
      avsb challenge team add "Team A" --contact a@example.org --challenge avs2027
    """
    with opened(challenge, database) as competition:
        token = competition.add_team(name, contact)
    _print_token(name, token, json)


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Name of the team.")],
    challenge: ChallengeOption = Path(),
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Replace the token of a team; the old one becomes invalid.

    \b
    Examples:
      avsb challenge team token "Team A" --challenge avs2027
    """
    with opened(challenge, database) as competition:
        fresh = competition.renew_token(name)
    _print_token(name, fresh, json)


@app.command()
def rename(
    name: Annotated[str, typer.Argument(help="Name of the team.")],
    new: Annotated[str, typer.Argument(help="New name.")],
    challenge: ChallengeOption = Path(),
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Rename a team, if the rules allow it.

    \b
    Examples:
      avsb challenge team rename "Team A" "Team Alpha" --challenge avs2027
    """
    with opened(challenge, database) as competition:
        competition.rename_team(name, new)
    if json:
        print_json({"team": new})
    else:
        typer.echo(f"{name} is now {new}")


@app.command("list")
def list_teams(
    challenge: ChallengeOption = Path(), database: DatabaseOption = None, json: JsonOption = False
) -> None:
    """List the teams and their numbers of submissions.

    \b
    Examples:
      avsb challenge team list --challenge avs2027
    """
    with opened(challenge, database) as competition:
        snapshot = competition.snapshot()
    rows = [
        {"team": name, "submissions": len(snapshot.of_team(team))} for team, name in snapshot.teams.items()
    ]
    if json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table("team", "submissions")
    for row in rows:
        table.add_row(str(row["team"]), str(row["submissions"]))
    print_rich(table)


def _print_token(name: str, token: str, json: bool) -> None:
    if json:
        print_json({"team": name, "token": token})
    else:
        typer.echo(token)
        typer.echo(f"Token of {name}: it is shown once. Send it to the team alone.", err=True)
