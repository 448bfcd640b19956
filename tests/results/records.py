"""Records for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from avsbench_harness.engine.spec_hash import spec_hash
from avsbench_harness.method import get_method, methods
from avsbench_harness.recipe.resolve import merge, resolve
from avsbench_harness.results.record import DataEntry, EnvironmentEntry, Record, ScoreEntry, write_record
from avsbench_harness.scoring import Scores, score_object
from avsbench_harness.tasks import get_task

ENVIRONMENT = EnvironmentEntry(
    harness="0", python="3", platform="p", packages={}, device="cpu", threads=1, git=None
)


def make_record(run_id: str, j: float | None, **changes: Any) -> Record:
    """A record with J ``j`` and F 0.9 under object/1; ``changes`` replace fields and entries of ``data``."""
    data = {"name": "avsbench", "split": "test", "synthetic": False, "solution": "f" * 64}
    data["fingerprint"] = None if changes.get("spec", ...) is None else "e" * 64
    data |= changes.pop("data", {})
    metrics = changes.pop("metrics", {"J": j, "F": 0.9})
    score = ScoreEntry(
        protocol=changes.pop("protocol", "object/1"),
        main=["J", "F"],
        metrics=metrics,
        intervals={"J": None if j is None else (j - 0.01, j + 0.01), "F": None},
        clips=740,
    )
    values: dict[str, Any] = {
        "method": "combo", "variant": "released", "backbone": "pvt", "preset": "full", "task": "s4",
        "seed": 0, "created": "2026-01-02T03:04:05Z",
    }  # fmt: skip
    given = {**values, **changes}
    values["spec"] = make_spec(given, data)
    if given.get("spec", ...) is not ...:
        values["spec"] = merge(values["spec"], changes.pop("spec")) if given["spec"] is not None else None
        changes.pop("spec", None)
    return Record(
        **{
            "scores": [score], "submission_sha256": "0" * 64, "environment": ENVIRONMENT, **values, **changes,
        },
        run_id=run_id,
        data=DataEntry(**data),
    )  # fmt: skip


def make_spec(values: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """A spec with the stock recipe that belongs to the fields of a record."""
    names = ("method", "variant", "backbone", "task", "preset", "seed")
    method = get_method(values["method"] if values["method"] in methods() else "combo")
    task = get_task(values["task"])
    recipe = resolve(method, task, values["backbone"] or "pvt", preset=values["preset"] or "full")
    return {
        "format": 3,
        **{name: values[name] for name in names},
        "data": {
            "name": data["name"],
            "synthetic": data["synthetic"],
            "fingerprint": data.get("fingerprint"),
        },
        "audio": {"encoder": "vggish", "weights": None, "trained": True},
        "backbone_weights": None,
        "recipe": recipe.to_dict(),
        "code": "avsbench-harness 0",
        "weights": None,
        "init": None,
    }


def score_entry(scores: Scores) -> ScoreEntry:
    """The scores as an entry of a record."""
    return ScoreEntry(
        protocol=scores.protocol, main=list(scores.main), metrics=scores.metrics,
        intervals=scores.intervals, clips=scores.n,
    )  # fmt: skip


def score_clips(folder: Path, run_id: str, flipped: int, **changes: Any) -> Record:
    """Write the record of 40 scored clips, the predictions of ``flipped`` of which are inverted.

    The id of the run is ``run_id`` and the hash of its spec.
    """
    masks = np.zeros((40, 1, 8, 8), np.uint8)
    masks[:, :, :4] = 1
    codes = masks * 255
    codes[:flipped] = 255 - codes[:flipped]
    scores = score_object(codes, masks)
    return write_scores(folder, run_id, scores, **changes)


def write_scores(folder: Path, run_id: str, scores: Scores, **changes: Any) -> Record:
    """Write a valid record of scores; the id of the run is ``run_id`` and the hash of its spec."""
    made = make_record(run_id, None, scores=[score_entry(scores)], **changes)
    assert made.spec is not None
    digest = spec_hash(made.spec)
    made = made.model_copy(update={"run_id": f"{run_id}-{digest[:10]}", "spec_hash": digest})
    write_record(folder / f"{made.run_id}.json", made, scores)
    return made
