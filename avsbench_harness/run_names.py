"""Names of runs that a user gives: a folder, an id, or a unique prefix of an id."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from avsbench_harness.errors import UsageError, one_line, unknown

#: Number of candidates that an error lists.
_LISTED = 10


def run_ids(out: Path) -> list[str]:
    """The ids of all runs in ``out/runs``, sorted."""
    return sorted(path.parent.name for path in (out / "runs").glob("*/spec.json"))


def match_prefix(asked: str, known: Iterable[str], kind: str = "run") -> str | None:
    """The known name that is or starts with ``asked``; ``None`` if there is none.

    Raises:
        UsageError: several names start with it; the error lists them.
    """
    names = sorted(known)
    if asked in names:
        return asked
    found = [name for name in names if asked and name.startswith(asked)]
    if len(found) > 1:
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise UsageError(
            f"'{one_line(asked, 100)}' is a prefix of {len(found)} {kind}s: "
            f"{', '.join(found[:_LISTED])}{more}; give more of the name."
        )
    return found[0] if found else None


def match_run(asked: str, out: Path) -> Path | None:
    """The folder of a run; ``None`` if there is none of that name.

    Args:
        asked: its folder, or its id or a unique prefix of it in ``out/runs``.
        out: the folder that holds ``runs/``.

    Raises:
        UsageError: several ids start with the prefix.
    """
    if (Path(asked) / "spec.json").is_file():
        return Path(asked)
    name = match_prefix(asked, run_ids(out))
    return None if name is None else out / "runs" / name


def find_run(asked: str, out: Path) -> Path:
    """The folder of a run, see :func:`match_run`.

    Raises:
        UsageError: there is no such run, or several.
    """
    folder = match_run(asked, out)
    if folder is None:
        known = run_ids(out)
        if not known:
            raise UsageError(
                f"Unknown run '{one_line(asked, 100)}': there are no runs in {out / 'runs'}; pass --out, or "
                "the folder of the run."
            )
        raise unknown("run", asked, known)
    return folder
