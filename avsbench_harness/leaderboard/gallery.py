"""The clips of a run that are worth a look, as pictures: best, median, worst, and where methods disagree."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from avsbench_harness.data.audio.waveform import read_audio
from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.data.clip import Clip
from avsbench_harness.data.images import read_frame
from avsbench_harness.files import atomic_write, sha256_file, sha256_json
from avsbench_harness.results import plots
from avsbench_harness.submission import Solution, Submission
from avsbench_harness.submission.codes import OBJECT
from avsbench_harness.tasks import MASK_SIZE, get_task

#: Clips of each kind.
COUNT = 2


@dataclass(frozen=True)
class Exhibit:
    """One clip of a gallery; paths are relative to the site.

    Attributes:
        kind: ``best``, ``median``, ``worst`` or ``disagreement``.
        clip: its id.
        value: its score in the first main metric.
        strip: the picture.
        waveform: the picture of its recording, empty where there is none.
        sound: the recording, empty where there is none.
    """

    kind: str
    clip: str
    value: float
    strip: str
    waveform: str
    sound: str


def choose(table: pd.DataFrame, metric: str, others: pd.Series[float] | None) -> list[tuple[str, str, float]]:
    """(kind, clip, value) of the clips to show.

    Args:
        table: a run's per-clip table.
        metric: by which.
        others: the mean score of other runs by clip; ``None`` where there are none.
    """
    known = table[np.isfinite(table[metric])].sort_values([metric, "clip"], ascending=[False, True])
    ids, values = list(known["clip"]), list(known[metric])
    middle = max(0, len(ids) // 2 - COUNT // 2)
    places = {
        "best": range(min(COUNT, len(ids))),
        "median": range(middle, min(middle + COUNT, len(ids))),
        "worst": range(max(0, len(ids) - COUNT), len(ids)),
    }
    found = [(kind, ids[place], values[place]) for kind, chosen in places.items() for place in chosen]
    if others is not None:
        own = pd.Series(values, index=ids)
        apart = (own - others.reindex(ids)).abs().dropna().sort_values(ascending=False, kind="stable")
        found += [("disagreement", str(clip), float(own[clip])) for clip in apart.index[:COUNT]]
    return found


def exhibits(
    chosen: list[tuple[str, str, float]],
    dataset: Dataset,
    submission: Submission,
    solution: Solution,
    site: Path,
    run_id: str,
) -> list[Exhibit]:
    """Draw the chosen clips into ``media/`` of a site; files that are there already are kept.

    Args:
        chosen: of :func:`choose`.
        dataset: with the frames and recordings.
        submission, solution: predictions and ground truth.
        site: the site's folder.
        run_id: whose predictions.
    """
    split = submission.header.split
    clips: Mapping[str, Clip] = {clip.id: clip for clip in dataset.clips(split)}  # type: ignore[arg-type]
    made = []
    for kind, clip_id, value in chosen:
        clip = clips[clip_id]
        picture = Path("media") / f"{_name(run_id, clip_id)}.png"
        if not (site / picture).is_file():
            _draw(clip, submission, solution, site / picture)
        waveform, sound = _sound(clip, site)
        made.append(Exhibit(kind, clip_id, value, picture.as_posix(), waveform, sound))
    return made


def _draw(clip: Clip, submission: Submission, solution: Solution, path: Path) -> None:
    truth, codes = solution.read(clip.id), submission.read(clip.id)
    semantic = get_task(submission.header.task).semantic
    prediction = codes if semantic else (codes >= OBJECT).astype(np.uint8)
    frames = np.stack([read_frame(frame, MASK_SIZE) for frame in clip.frames])
    picture = plots.strip(frames, truth[: len(frames)], prediction[: len(frames)])
    with atomic_write(path) as file:
        Image.fromarray(picture).save(file, format="PNG")


def _sound(clip: Clip, site: Path) -> tuple[str, str]:
    """A recording's picture and a copy of it, relative to the site; empty where there is none.

    They are named by what they hold: clips of other data sets may have the same id.
    """
    if clip.audio is None:
        return "", ""
    name = _name("sound", sha256_file(clip.audio), str(len(clip.frames)))
    picture, sound = Path("media") / f"{name}.png", Path("media") / f"{name}{clip.audio.suffix}"
    if not (site / picture).is_file():
        samples, rate = read_audio(clip.audio)
        plots.save(plots.waveform(samples, rate, len(clip.frames)), site / picture)
    if not (site / sound).is_file():
        with atomic_write(site / sound) as copy, clip.audio.open("rb") as source:
            shutil.copyfileobj(source, copy)
    return picture.as_posix(), sound.as_posix()


def _name(*parts: str) -> str:
    """A file name for a stranger's words."""
    return sha256_json(list(parts))[:16]
