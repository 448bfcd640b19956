"""Options that the commands of ``avsb challenge`` share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from avsbench_harness.errors import UsageError

if TYPE_CHECKING:
    from avsbench_harness.host.challenge import Challenge

ChallengeOption: TypeAlias = Annotated[
    Path, typer.Option("--challenge", help="Folder of the competition; default: the current folder.")
]
DatabaseOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--database",
        envvar="AVSB_CHALLENGE_DATABASE",
        help="SQLAlchemy URL of another database than the SQLite file in the folder.",
    ),
]


def opened(folder: Path, database: str | None, *, strict: bool = True) -> Challenge:
    """Open a competition; ``strict=False`` also one whose log is damaged."""
    import avsbench_harness.host.database  # noqa: F401 - reports a missing extra
    from avsbench_harness.host.challenge import Challenge

    return Challenge(folder, database, strict=strict)


def parse_fields(assignments: Sequence[str]) -> dict[str, str]:
    """The required fields of a submission from NAME=TEXT."""
    fields = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise UsageError(f"--field needs NAME=TEXT, got '{assignment}'.")
        fields[name.strip()] = value.strip()
    return fields
