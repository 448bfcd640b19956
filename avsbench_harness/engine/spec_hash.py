"""The hash of a spec. Imports no torch, so that records are checked without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from avsbench_harness.files import sha256_json


def spec_hash(spec: Mapping[str, Any]) -> str:
    """The hash of a spec's JSON values, without the fields that do not change the result."""
    values = dict(spec)
    ignored = {"recipe": ("source", "keep"), "weights": ("file",), "init": ("file",)}
    for key, names in ignored.items():
        if values.get(key) is not None:
            values[key] = {name: value for name, value in values[key].items() if name not in names}
    return sha256_json(values)
