"""Withheld ground truth: ``withheld.json`` in a data root names the splits whose masks a host keeps.

A submission of such a split carries the fingerprint of the ground truth that the file gives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from avsbench_harness.data.errors import BadFileError
from avsbench_harness.errors import UsageError
from avsbench_harness.files import read_json
from avsbench_harness.schema import Schema
from avsbench_harness.tasks import Split, Task

#: Name of the file.
WITHHELD = "withheld.json"


class Withheld(Schema):
    """The fingerprints of withheld ground truth by task and split."""

    format: Literal[1]
    solutions: dict[str, dict[Split, Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]]]


def read_withheld(task: Task, *folders: Path) -> dict[Split, str]:
    """The fingerprints of a task's withheld splits, from the first folder that has the file.

    Raises:
        BadFileError: the file is malformed.
    """
    for folder in folders:
        path = folder / WITHHELD
        if path.is_file():
            try:
                return Withheld.parse(read_json(path), str(path)).solutions.get(task.name, {})
            except UsageError as error:
                raise BadFileError(path, f"does not name withheld ground truth: {error}") from error
    return {}
