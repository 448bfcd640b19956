"""Segmentation of a video file: predictions, the overlay video and the masks."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.console import counter
from avsbench_harness.engine.interrupt import StopRequest, stop_request
from avsbench_harness.engine.predictor import Predictor
from avsbench_harness.errors import AvsbError, Interrupted, UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.tasks import Task
from avsbench_harness.video.export import write_masks
from avsbench_harness.video.frames import read_frames
from avsbench_harness.video.mask_store import MaskStore, open_store
from avsbench_harness.video.media import Damage, Media
from avsbench_harness.video.overlay import Overlay, colours_of, names_of
from avsbench_harness.video.probe import probe
from avsbench_harness.video.sound import SoundReader
from avsbench_harness.video.strip import Entry, Strip
from avsbench_harness.video.windows import Timeline
from avsbench_harness.video.write import check_output, write_video

logger = logging.getLogger(__name__)

#: Changes whenever the masks of the same video and weights change.
VERSION = 1

#: Sound that goes on after the picture for longer than this is reported, seconds.
_TAIL = 1


@dataclass(frozen=True)
class SegmentOptions:
    """Options of a segmentation.

    Attributes:
        fps: predictions per second, see :mod:`avsbench_harness.video.windows`.
        overlap: of consecutive windows, seconds.
        threshold: probability above which a pixel is foreground (s4, ms3); ``None`` for 0.5.
        crf: quality of the overlay video, see :func:`.write_video`.
        overlay: whether to write the overlay video.
        masks: data root for masks; ``None`` for none.
    """

    fps: int = 1
    overlap: int = 0
    threshold: float | None = None
    crf: int | None = None
    overlay: bool = True
    masks: Path | None = None


@dataclass(frozen=True)
class SegmentedObject:
    """One label of a prediction, with the fraction of the frame that it covers."""

    label: int
    name: str
    colour: str
    area: float


@dataclass(frozen=True)
class SegmentedFrame:
    """One prediction: the interval in which it is shown, seconds, and its labels, largest first."""

    start: float
    end: float
    padded: bool
    objects: tuple[SegmentedObject, ...]


@dataclass(frozen=True)
class Segmentation:
    """The result of :func:`segment`.

    Attributes:
        video: the file.
        overlay: the overlay video, ``None`` without.
        masks: the COCO file of the masks, ``None`` without.
        model: method, task and backbone.
        weights: SHA-256 of the weights.
        seconds: length of the video.
        windows: number of windows, ``padded`` of them with padded frames.
        predictions: the predictions in order.
        notes: remarks on the file.
    """

    video: str
    overlay: str | None
    masks: str | None
    model: str
    weights: str
    seconds: float
    windows: int
    padded: int
    predictions: tuple[SegmentedFrame, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The attributes."""
        return asdict(self)


def segment(predictor: Predictor, video: Path, output: Path, options: SegmentOptions) -> Segmentation:
    """Predict a video, and write its overlay and its masks.

    Frames are decoded, predicted and encoded one window or one frame at a time. Masks are kept beside the
    output until it is finished, so that an interrupted call resumes at the next window.

    Args:
        predictor: the trained model.
        video: a file that FFmpeg reads.
        output: the overlay video; without one, the name of the folder with unfinished masks derives from it.
        options: see :class:`SegmentOptions`.

    Raises:
        UsageError: the video cannot be read, an option is out of range, or the output is the video.
        Interrupted: a stop was requested; the masks predicted so far are kept.
    """
    threshold = _threshold(predictor.task, options.threshold)
    if options.overlay:
        check_output(output, options.crf)
        if output.exists() and video.exists() and output.samefile(video):
            raise UsageError(f"The output would overwrite {video}; pass another --out.")
    media = probe(video)
    timeline = Timeline(media.seconds, options.fps, predictor.task.frames, options.overlap)
    key = {
        "version": VERSION,
        "video": sha256_file(video),
        "spec": predictor.run.spec.hash,
        "weights": predictor.weights,
        "fps": options.fps,
        "overlap": options.overlap,
        "threshold": threshold,
    }
    damage = Damage()
    with stop_request() as stop, open_store(output.with_name(f"{output.name}.masks"), key) as masks:
        _predict(predictor, media, timeline, masks, threshold, damage, stop)
        coco = None
        if options.masks is not None:
            coco = write_masks(options.masks, predictor.task, video, timeline, masks)
        if options.overlay:
            _write_overlay(predictor.task, media, timeline, masks, output, options.crf, stop)
        windows = timeline.windows()
        padded = _padded(timeline)
        frames = tuple(
            _frame(predictor.task, timeline, index, index in padded, masks) for index in range(timeline.count)
        )
    spec = predictor.run.spec
    return Segmentation(
        video=str(video),
        overlay=str(output) if options.overlay else None,
        masks=None if coco is None else str(coco),
        model=f"{spec.method} ({spec.variant}) for {spec.task} with {spec.backbone}",
        weights=predictor.weights,
        seconds=float(media.seconds),
        windows=len(windows),
        padded=sum(window.padded for window in windows),
        predictions=frames,
        notes=tuple(_notes(predictor, media, damage)),
    )


def _predict(
    predictor: Predictor,
    media: Media,
    timeline: Timeline,
    masks: MaskStore,
    threshold: float,
    damage: Damage,
    stop: StopRequest,
) -> None:
    """Predict the windows whose masks are not stored."""
    total = len(timeline.windows())
    missing = sum(not masks.has(window, timeline.fps) for window in timeline.windows())
    if missing < total:
        logger.info(f"{total - missing} of {total} windows of {media.path} are predicted already.")
    with counter("predict", total) as advance:
        advance(total - missing)
        for window, prediction in predictor.predict_windows(
            media, timeline, skip=lambda window: masks.has(window, timeline.fps), damage=damage
        ):
            kept = predictor.masks(prediction[list(window.kept)], (media.height, media.width), threshold)
            for second, labels in zip(window.kept, kept, strict=True):
                masks.write(window.first + second * timeline.fps, labels)
            advance(1)
            _check(stop)


def _write_overlay(
    task: Task,
    media: Media,
    timeline: Timeline,
    masks: MaskStore,
    output: Path,
    crf: int | None,
    stop: StopRequest,
) -> None:
    """Decode the video again, draw the masks and the strip, and encode it with its sound."""
    colours, padded = colours_of(task), _padded(timeline)
    strip = Strip(media.width, timeline, SoundReader(media, 1) if media.sound_rate else None)
    current, overlay, entries = -1, None, list[Entry]()
    done = 0
    with (
        counter("overlay", math.ceil(media.seconds)) as advance,
        write_video(output, media, (media.width, media.height + strip.height), crf) as writer,
    ):
        for frame in read_frames(media):
            index = timeline.at(frame.time)
            if index != current or overlay is None:
                labels = masks.read(index)
                current, overlay = index, Overlay(labels, colours)
                entries = [(one.name, _rgb(colours, one.label)) for one in _objects(task, labels)]
                _check(stop)
            below = strip.draw(frame.time, entries, padded=index in padded)
            writer.write(frame.time, np.concatenate([overlay.apply(frame.pixels()), below]))
            second = math.floor(frame.time)
            advance(second - done)
            done = second


def _frame(task: Task, timeline: Timeline, index: int, padded: bool, masks: MaskStore) -> SegmentedFrame:
    start, end = timeline.shown(index)
    return SegmentedFrame(float(start), float(end), padded, _objects(task, masks.read(index)))


def _objects(task: Task, labels: NDArray[np.uint8]) -> tuple[SegmentedObject, ...]:
    """The labels of a mask, largest first."""
    counts = np.bincount(labels.ravel(), minlength=2)
    found = sorted(np.flatnonzero(counts[1:]) + 1, key=lambda label: -counts[label])
    names, colours = names_of(task), colours_of(task)
    return tuple(
        SegmentedObject(
            label=int(label),
            name=names[label],
            colour="#{:02x}{:02x}{:02x}".format(*colours[label]),
            area=float(counts[label] / labels.size),
        )
        for label in found
    )


def _padded(timeline: Timeline) -> set[int]:
    """The predictions from windows with padded frames."""
    return {
        window.first + second * timeline.fps
        for window in timeline.windows()
        if window.padded
        for second in window.kept
    }


def _notes(predictor: Predictor, media: Media, damage: Damage) -> list[str]:
    notes = [predictor.remark] if predictor.remark else []
    if media.sound_rate is None:
        notes.append(f"{media.path} has no sound; it was predicted with silence.")
    elif media.sound_end > media.seconds + _TAIL:
        tail = float(media.sound_end - media.seconds)
        notes.append(f"The sound of {media.path} goes on for {tail:.1f} s after the picture.")
    if damage.packets:
        notes.append(
            f"{media.path} is damaged in {damage.packets} places, where the frame before or silence is used."
        )
    return notes


def _threshold(task: Task, asked: float | None) -> float:
    if asked is not None and task.semantic:
        raise UsageError("--threshold has no effect on avss, whose masks are the most probable classes.")
    threshold = 0.5 if asked is None else asked
    if not 0 <= threshold < 1:
        raise UsageError(f"--threshold must be 0 or more and less than 1, got {threshold}.")
    return threshold


def _rgb(colours: NDArray[np.uint8], label: int) -> tuple[int, int, int]:
    red, green, blue = colours[label].tolist()
    return red, green, blue


def _check(stop: StopRequest) -> None:
    if stop:
        raise stop.error("The masks predicted so far are kept; rerun the same command to resume.")


def output_files(videos: list[Path], out: Path | None) -> dict[Path, Path]:
    """The overlay of each video: ``out`` for one video, else files in the folder ``out``.

    Raises:
        UsageError: several videos have the same name, or ``out`` is a file for several videos.
    """
    folder = out if out is not None and (out.is_dir() or not out.suffix) else None
    if out is not None and folder is None and len(videos) > 1:
        raise UsageError(f"--out {out} is one file for {len(videos)} videos; pass a folder.")
    if out is not None and folder is None:
        return {videos[0]: out}
    stems = Counter(video.stem for video in videos)
    files = {
        video: (folder or Path()) / f"{video.stem if stems[video.stem] == 1 else video.name}-segmented.mp4"
        for video in videos
    }
    if len(set(files.values())) < len(videos):
        raise UsageError("Several videos have the same name; segment them one by one with --out.")
    return files


def segment_all(
    predictor: Predictor,
    files: dict[Path, Path],
    options: SegmentOptions,
    done: Callable[[Segmentation], None],
) -> dict[Path, AvsbError]:
    """Segment several videos; one that fails does not stop the others.

    Args:
        predictor, options: as for :func:`segment`.
        files: the output of each video.
        done: called with each result.

    Returns:
        the failures.

    Raises:
        Interrupted: a stop was requested.
    """
    failures: dict[Path, AvsbError] = {}
    for video, output in files.items():
        try:
            done(segment(predictor, video, output, options))
        except Interrupted:
            raise
        except AvsbError as error:
            failures[video] = error
    return failures
