"""Per-clip and per-class tables of records, read as untrusted data."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from avsbench_harness.scoring.scores import Floats, Reduce, ratio
from avsbench_harness.scoring.semantic import SemanticCanonical
from avsbench_harness.tasks import CLASSES, Task

if TYPE_CHECKING:
    import pandas as pd

#: Largest size of a table, and its largest number of columns.
MAX_BYTES, MAX_COLUMNS = 64 << 20, 32
#: Largest number of clips, as many as a submission can have; each takes time in 2,000 resamples.
MAX_CLIPS = 20_000

#: Rounding error that values in [0, 1] may have.
EPSILON = 1e-9


@dataclass(frozen=True)
class ClipSums:
    """Per-clip sums of a record under a canonical protocol.

    Attributes:
        clips: ids.
        sums: (N,K), one row per clip.
        reduce: metrics from column sums.
        metrics: every metric that the tables determine; ``None`` if undefined.
        columns: the columns of the per-clip table with numbers, (N,) each.
    """

    clips: tuple[str, ...]
    sums: Floats
    reduce: Reduce
    metrics: dict[str, float | None]
    columns: dict[str, Floats] = field(default_factory=dict)


def parse_object_table(content: bytes, task: Task) -> ClipSums:
    """Parse and check the per-clip table of a record of s4 or ms3.

    Args:
        content: the file ``<run-id>.clips.csv``.
        task: the record's task.

    Raises:
        ValueError: the table is damaged, or has values outside their range.
    """
    table = _parse_table(content, ("clip", "frames", "J", "F"))
    clips, frames = _clips(table, task)
    values = {name: _shares(table, name) for name in _SHARES if name in table}
    if "empty_frames" not in table:
        values = {name: column for name, column in values.items() if name not in _PER_FRAME}
    j, f = values["J"], values["F"]
    if np.isnan(j).any():
        raise ValueError("J of a clip is missing")
    has_f = np.isfinite(f)
    sums = np.column_stack([np.ones(len(j)), j, has_f, np.where(has_f, f, 0)])
    metrics: dict[str, float | None] = {name: _mean(column) for name, column in values.items()}
    if "empty_frames" in table:
        empty = table["empty_frames"].to_numpy(np.float64)
        if not _are_counts(empty, 0, frames):
            raise ValueError("empty_frames must be integers from 0 to the number of frames")
        if (has_f != (empty < frames)).any():
            raise ValueError("F must be empty exactly for the clips without an object")
        for name, weights in zip(_PER_FRAME, (frames - empty, empty), strict=True):
            if name in values:
                metrics[name] = _weighted_mean(values[name], weights)
        values["empty_frames"] = empty
        _check_j(values, frames)
    return ClipSums(clips, sums, _reduce_object, metrics, {"frames": frames, **values})


def parse_semantic_tables(content: bytes, classes: bytes, task: Task) -> ClipSums:
    """Parse and check the per-clip and the per-class table of a record of avss.

    Args:
        content: the file ``<run-id>.clips.csv``.
        classes: the file ``<run-id>.classes.csv``.
        task: the record's task.

    Raises:
        ValueError: a table is damaged, has values outside their range, or contradicts the other.
    """
    table = _parse_table(content, ("clip", "frames", "mIoU", "F"))
    clips, frames = _clips(table, task)
    for name in ("mIoU", "F"):
        if np.isnan(_shares(table, name)).any():
            raise ValueError(f"{name} of a clip is missing")
    sums = _class_sums(_parse_table(classes, ("clip", "class", "IoU", "F", "frames")), clips, frames)
    protocol = SemanticCanonical()
    own = protocol.reduce(sums)
    for name in ("mIoU", "F"):
        if not (abs(_shares(table, name) - own[f"{name}_seen"]) <= EPSILON).all():
            raise ValueError(f"{name} of a clip is not that of the per-class file")
    metrics = {name: _number(value) for name, value in protocol.reduce(sums.sum(axis=0)).items()}
    return ClipSums(clips, sums, protocol.reduce, metrics, {"frames": frames})


#: Metrics that are means over the frames with and without an object.
_PER_FRAME = ("J_object", "false_positive_area")
_SHARES = ("J", "F", "F_half", *_PER_FRAME)

#: The filters of warnings belong to the process, not to a thread.
_WARNINGS = threading.Lock()


def _check_j(values: dict[str, Floats], frames: Floats) -> None:
    """Compare J of every clip with its parts: frames with an object, and those without one."""
    if not values.keys() >= set(_PER_FRAME):
        return
    empty = values["empty_frames"]
    parts = ((values["J_object"], frames - empty), (1 - values["false_positive_area"], empty))
    total = sum(np.where(weights > 0, part, 0) * weights for part, weights in parts)
    if not (abs(values["J"] * frames - total) <= 1e-6).all():
        raise ValueError("J of a clip contradicts J_object and false_positive_area")


def _parse_table(content: bytes, required: Sequence[str]) -> pd.DataFrame:
    """The table, with ``clip`` as text (a clip may be named ``NA``) and the rest as numbers, NaN if empty."""
    import pandas as pd

    if len(content) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES >> 20} MiB")
    header = content[: content.find(b"\n") + 1].decode("utf-8").strip().split(",")
    missing = [name for name in required if name not in header]
    if missing or len(header) > MAX_COLUMNS or len(set(header)) < len(header):
        raise ValueError(f"lacks the column {missing[0]}" if missing else "its header is not valid")
    numbers = [name for name in header if name != "clip"]
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows that are longer than the header
        try:
            return pd.read_csv(
                io.BytesIO(content),
                dtype={"clip": str, **dict.fromkeys(numbers, np.float64)},
                keep_default_na=False,
                na_values={name: [""] for name in numbers},
                index_col=False,
            )
        except pd.errors.ParserWarning as error:
            raise ValueError(str(error)) from None


def _clips(table: pd.DataFrame, task: Task) -> tuple[tuple[str, ...], Floats]:
    """The clips, and their numbers of frames."""
    if len(table) > MAX_CLIPS:
        raise ValueError(f"it has more than {MAX_CLIPS} clips")
    clips, frames = tuple(table["clip"].tolist()), table["frames"].to_numpy(np.float64)
    if not clips or len(set(clips)) < len(clips) or "" in clips:
        raise ValueError("clips are missing or named twice")
    if not _are_counts(frames, 1, task.frames):
        raise ValueError(f"frames must be integers from 1 to {task.frames}")
    return clips, frames


def _shares(table: pd.DataFrame, name: str) -> Floats:
    """A column of values in [0, 1], NaN if empty."""
    values = table[name].to_numpy(np.float64)
    if ((values < -EPSILON) | (values > 1 + EPSILON)).any():
        raise ValueError(f"{name} must be from 0 to 1")
    return values


def _class_sums(table: pd.DataFrame, clips: Sequence[str], frames: Floats) -> Floats:
    """(N,213) columns of semantic/1: sums of IoU, sums of F and numbers of frames, 71 each."""
    import pandas as pd

    rows = pd.Index(clips).get_indexer(pd.Index(table["clip"]))
    columns = table["class"].to_numpy(np.float64)
    if (rows < 0).any() or not _are_counts(columns, 0, len(CLASSES) - 1):
        raise ValueError(f"the per-class file has unknown clips, or classes outside 0 to {len(CLASSES) - 1}")
    columns = columns.astype(int)
    if len(np.unique(rows * len(CLASSES) + columns)) < len(rows):
        raise ValueError("the per-class file has a class of a clip twice")
    present = table["frames"].to_numpy(np.float64)
    if not _are_counts(present, 1, frames[rows]):
        raise ValueError("frames of the per-class file must be integers from 1 to those of the clip")
    sums = np.zeros((len(clips), 3, len(CLASSES)))
    sums[rows, 2, columns] = present
    for block, name in enumerate(("IoU", "F")):
        values = table[name].to_numpy(np.float64)
        if not ((values >= -EPSILON) & (values <= present + EPSILON)).all():
            raise ValueError(f"{name} of the per-class file must be from 0 to the number of frames")
        sums[rows, block, columns] = values
    return sums.reshape(len(clips), -1)


def _are_counts(values: Floats, low: int, high: int | Floats) -> bool:
    """Whether all values are integers from ``low`` to ``high``."""
    return bool(((values >= low) & (values <= high) & (values == np.floor(values))).all())


def _reduce_object(sums: Floats) -> dict[str, Floats]:
    clips, j, with_f, f = np.moveaxis(sums, -1, 0)
    return {"J": ratio(j, clips), "F": ratio(f, with_f)}


def _mean(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def _weighted_mean(values: Floats, weights: Floats) -> float | None:
    used = weights > 0
    if np.isnan(values[used]).any():
        raise ValueError("a value of a clip is missing")
    return float((values[used] * weights[used]).sum() / weights[used].sum()) if used.any() else None


def _number(value: Floats) -> float | None:
    return float(value) if np.isfinite(value) else None
