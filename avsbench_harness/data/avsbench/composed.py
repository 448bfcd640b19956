"""The description of a composed data set, ``composed.json`` in its root."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from avsbench_harness.data.errors import BadFileError
from avsbench_harness.errors import UsageError
from avsbench_harness.files import read_json
from avsbench_harness.schema import Schema
from avsbench_harness.tasks import Split, Task

#: Name of the file.
DESCRIPTION = "composed.json"

#: Names of composed data sets, for messages.
NAME_RULE = "letters, digits, spaces, '.', '-' and '_' (at most 60), not avsbench, synthetic or custom"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,59}")
# Names that mean something else in records.
_RESERVED = ("avsbench", "synthetic", "custom")


def is_name(name: str) -> bool:
    """Return whether a composed data set can have the name."""
    return _NAME.fullmatch(name) is not None and name.lower() not in _RESERVED


def _check_name(name: str) -> str:
    if not is_name(name):
        raise ValueError("is not the name of a composed data set")
    return name


_Digest = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
_Count = Annotated[int, Field(ge=0, lt=1_000_000)]


class Composed(Schema):
    """The facts of a composed data set.

    Attributes:
        format: version of the file format.
        name: name of the data set in records and tables.
        version: version of the composer.
        seed: seed of the data set.
        clips: number of clips of each split, the same in all tasks.
        content: SHA-256 of each task's splits, over the frames, labels and samples as they were composed.
            Unlike the sizes of files it does not depend on the version of the image library.
    """

    format: Literal[1]
    name: Annotated[str, AfterValidator(_check_name)]
    version: _Count
    seed: Annotated[int, Field(ge=0, lt=2**64)]
    clips: dict[Split, _Count]
    content: dict[str, dict[Split, _Digest]]

    def digest(self, task: Task, split: Split) -> str | None:
        """Return the digest of a split; ``None`` if the description does not cover it."""
        return self.content.get(task.name, {}).get(split)


def read_composed(*folders: Path) -> Composed | None:
    """Read the description in the first of the folders that has one; ``None`` if there is none.

    Raises:
        BadFileError: the file is malformed.
    """
    for folder in folders:
        path = folder / DESCRIPTION
        if path.is_file():
            try:
                content = read_json(path)
                if not isinstance(content, dict):
                    raise BadFileError(path, "is not a JSON object")
                return Composed.parse(content, str(path))
            except BadFileError:
                raise
            except UsageError as error:
                raise BadFileError(path, f"is not a description of a composed data set: {error}") from error
    return None
