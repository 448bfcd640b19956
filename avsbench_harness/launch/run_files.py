"""Files of runs that a user names by the run: submissions and records."""

from __future__ import annotations

from pathlib import Path

from avsbench_harness.errors import MissingDataError
from avsbench_harness.run_names import match_prefix, match_run


def find_submission(asked: str, out: Path = Path()) -> Path:
    """The submission that a user names.

    Args:
        asked: a file; or a run's folder, its id or a unique prefix of it, for its submission to the test
            split.
        out: the folder that holds ``runs/``.

    Raises:
        UsageError: several runs have that prefix.
        MissingDataError: the run has no submission.
    """
    path = Path(asked)
    folder = None if path.is_file() or path.suffix == ".npz" else match_run(asked, out)
    if folder is None:  # a missing file is reported when it is read
        return path
    submission = folder.resolve().parents[1] / "submissions" / f"{folder.resolve().name}.npz"
    if folder.parent == out / "runs":
        submission = out / "submissions" / submission.name
    if not submission.is_file():
        raise MissingDataError(
            f"The run {folder.name} has no submission at {submission}; write it with "
            f"`avsb predict {folder.name}`."
        )
    return submission


def find_record(asked: str, results: Path = Path("results")) -> Path:
    """The record that a user names: a file, or a run's id or a unique prefix of it in ``results``.

    Raises:
        UsageError: several records have that prefix.
    """
    if Path(asked).is_file():
        return Path(asked)
    name = match_prefix(asked, (path.stem for path in results.glob("*.json")), "record")
    return Path(asked) if name is None else results / f"{name}.json"
