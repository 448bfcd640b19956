"""The hash of a spec. Imports no torch, so that records are checked without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from avsbench_harness.files import sha256_json

#: Recipe keys that are left out of hashes while they have this value: the ids of runs that were made before
#: the keys existed stay the same.
ADDED: Mapping[str, Any] = {"early_stopping": None}


def hashed_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's JSON values, without those of :data:`ADDED`."""
    return {key: value for key, value in recipe.items() if key not in ADDED or value != ADDED[key]}


def spec_hash(spec: Mapping[str, Any]) -> str:
    """The hash of a spec's JSON values, without the fields that do not change the result."""
    values = dict(spec)
    ignored = {"recipe": ("source", "keep"), "weights": ("file",), "init": ("file",)}
    for key, names in ignored.items():
        if values.get(key) is not None:
            values[key] = {name: value for name, value in values[key].items() if name not in names}
    if isinstance(values.get("recipe"), Mapping):
        values["recipe"] = hashed_recipe(values["recipe"])
    return sha256_json(values)
