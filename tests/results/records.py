"""Records for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from avsbench_harness.results.record import DataEntry, EnvironmentEntry, Record, ScoreEntry, write_record
from avsbench_harness.scoring import Scores, score_object

ENVIRONMENT = EnvironmentEntry(
    harness="0", python="3", platform="p", packages={}, device="cpu", threads=1, git=None
)


def make_record(run_id: str, j: float | None, **changes: Any) -> Record:
    """A record with J ``j`` and F 0.9 under object/1; ``changes`` replace fields and entries of ``data``."""
    data = {"name": "avsbench", "split": "test", "synthetic": False, "solution": "f" * 64}
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
        "spec": {"recipe": {"lr": 1}, "seed": changes.get("seed", 0)},
    }  # fmt: skip
    return Record(
        **{
            "scores": [score], "submission_sha256": "0" * 64, "environment": ENVIRONMENT, **values, **changes,
        },
        run_id=run_id,
        data=DataEntry(**data),
    )  # fmt: skip


def score_entry(scores: Scores) -> ScoreEntry:
    """The scores as an entry of a record."""
    return ScoreEntry(
        protocol=scores.protocol, main=list(scores.main), metrics=scores.metrics,
        intervals=scores.intervals, clips=scores.n,
    )  # fmt: skip


def score_clips(folder: Path, run_id: str, flipped: int, **changes: Any) -> Record:
    """Write the record of 40 scored clips, the predictions of ``flipped`` of which are inverted."""
    masks = np.zeros((40, 1, 8, 8), np.uint8)
    masks[:, :, :4] = 1
    codes = masks * 255
    codes[:flipped] = 255 - codes[:flipped]
    scores = score_object(codes, masks)
    made = make_record(run_id, None, scores=[score_entry(scores)], spec=None, **changes)
    write_record(folder / f"{run_id}.json", made, scores)
    return made
