"""Where AVSBench lies on this machine."""

from __future__ import annotations

import os
from pathlib import Path

#: The environment variable that names the data root.
VARIABLE = "AVSB_DATA_DIR"


def data_root(given: Path | None) -> Path | None:
    """The data root: what was given, else ``AVSB_DATA_DIR``, else none."""
    if given is not None:
        return given
    variable = os.environ.get(VARIABLE)
    return Path(variable) if variable else None
