"""Gallery of a run page: its best, median and worst clips, and the clips on which methods disagree most."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from avsbench_harness.analysis import plots
from avsbench_harness.data.audio.waveform import read_audio
from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.data.clip import Clip
from avsbench_harness.files import atomic_write, sha256_file, sha256_json
from avsbench_harness.submission import Solution, Submission

#: Number of clips per kind.
COUNT = 2


@dataclass(frozen=True)
class GalleryClip:
    """One clip of a gallery; paths are relative to the site.

    Attributes:
        kind: ``best``, ``median``, ``worst`` or ``disagreement``.
        clip: id of the clip.
        value: score in the first main metric.
        strip: image of the frames with outlines.
        waveform: plot of the recording, empty without audio.
        audio: copy of the recording, empty without audio.
    """

    kind: str
    clip: str
    value: float
    strip: str
    waveform: str
    audio: str


def choose_clips(
    table: pd.DataFrame, metric: str, others: pd.Series[float] | None
) -> list[tuple[str, str, float]]:
    """Choose the clips of a gallery.

    Args:
        table: per-clip table of a run.
        metric: metric to sort by.
        others: mean score of other runs by clip; ``None`` without other runs.

    Returns:
        (kind, clip id, score) of each clip.
    """
    known = table[np.isfinite(table[metric])].sort_values([metric, "clip"], ascending=[False, True])
    ids, values = list(known["clip"]), list(known[metric])
    middle = max(0, len(ids) // 2 - COUNT // 2)
    positions = {
        "best": range(min(COUNT, len(ids))),
        "median": range(middle, min(middle + COUNT, len(ids))),
        "worst": range(max(0, len(ids) - COUNT), len(ids)),
    }
    chosen = [(kind, ids[index], values[index]) for kind, indices in positions.items() for index in indices]
    if others is not None:
        own = pd.Series(values, index=ids)
        distance = (own - others.reindex(ids)).abs().dropna().sort_values(ascending=False, kind="stable")
        chosen += [("disagreement", str(clip), float(own[clip])) for clip in distance.index[:COUNT]]
    return chosen


def draw_gallery(
    chosen: list[tuple[str, str, float]],
    dataset: Dataset,
    submission: Submission,
    solution: Solution,
    site: Path,
    run_id: str,
) -> list[GalleryClip]:
    """Draw the chosen clips into ``media/`` of a site; existing files are kept.

    Args:
        chosen: result of :func:`choose_clips`.
        dataset: data set with the frames and recordings.
        submission: predictions of the run.
        solution: ground truth.
        site: folder of the site.
        run_id: id of the run.
    """
    split = submission.header.split
    clips: Mapping[str, Clip] = {clip.id: clip for clip in dataset.clips(split)}  # type: ignore[arg-type]
    gallery = []
    for kind, clip_id, value in chosen:
        clip = clips[clip_id]
        image = Path("media") / f"{_file_name(run_id, clip_id)}.png"
        if not (site / image).is_file():
            strip = plots.clip_strip(clip, submission, solution)
            with atomic_write(site / image) as file:
                Image.fromarray(strip).save(file, format="PNG")
        waveform, audio = _copy_audio(clip, site)
        gallery.append(GalleryClip(kind, clip_id, value, image.as_posix(), waveform, audio))
    return gallery


def _copy_audio(clip: Clip, site: Path) -> tuple[str, str]:
    """Plot a recording and copy it; the paths relative to the site, empty without audio.

    The files are named by content, because clips of different data sets may have the same id.
    """
    if clip.audio is None:
        return "", ""
    name = _file_name("sound", sha256_file(clip.audio), str(len(clip.frames)))
    waveform, audio = Path("media") / f"{name}.png", Path("media") / f"{name}{clip.audio.suffix}"
    if not (site / waveform).is_file():
        samples, rate = read_audio(clip.audio)
        plots.save(plots.waveform(samples, rate, len(clip.frames)), site / waveform)
    if not (site / audio).is_file():
        with atomic_write(site / audio) as copy, clip.audio.open("rb") as source:
            shutil.copyfileobj(source, copy)
    return waveform.as_posix(), audio.as_posix()


def _file_name(*parts: str) -> str:
    """A safe file name derived from untrusted text."""
    return sha256_json(list(parts))[:16]
