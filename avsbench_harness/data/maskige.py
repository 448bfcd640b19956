"""Maskiges: images of a frame's class-agnostic masks, one colour per mask, an additional input of COMBO.

Yang et al., "Cooperation Does Matter" (CVPR 2024), section 3.1. The authors publish maskiges made with
Semantic-SAM; :func:`paint` implements their painting rule. As a replacement, a segmenter of scikit-image that
needs no weights or a Segment Anything model from a local folder makes maskiges. Their pixels differ, so the
source is part of a run's recipe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.data.clip import Clip
from avsbench_harness.data.parallel import each_clip
from avsbench_harness.data.pixels import Size, fit_image, load_image
from avsbench_harness.errors import MissingDataError, UsageError, unknown
from avsbench_harness.files import atomic_write, cache_dir, sha256_file
from avsbench_harness.recipe.schema import Fit

#: Changes whenever a segmenter or the painting gives other pixels for the same frame.
VERSION = 1

Masks = NDArray[np.bool_]


def felzenszwalb(frame: NDArray[np.uint8]) -> Masks:
    """Segment a frame (H,W,3) into masks (K,H,W) by Felzenszwalb and Huttenlocher's graph segmentation."""
    from skimage import segmentation

    labels = segmentation.felzenszwalb(frame, scale=200, sigma=0.8, min_size=100)
    return np.stack([labels == label for label in range(labels.max() + 1)])


#: Segmenters without weights, by name.
SEGMENTERS: dict[str, Callable[[NDArray[np.uint8]], Masks]] = {"felzenszwalb": felzenszwalb}

#: Sources of maskiges: the authors' files beside the frames, or a segmenter's in the cache. Another source is
#: a Segment Anything model, named ``sam-`` and digits of the model's hash.
SOURCES = ("published", *SEGMENTERS)
_SAM = re.compile(r"sam-[0-9a-f]{12}")


class NamedSegmenter(Protocol):
    """A segmenter with weights, such as :class:`avsbench_harness.data.sam.Sam`."""

    name: str

    def __call__(self, frame: NDArray[np.uint8]) -> Masks:
        """Return masks (K,H,W) of a frame (H,W,3)."""


def check_source(source: str) -> None:
    """Check the name of a source of maskiges.

    Raises:
        UsageError: the source is unknown.
    """
    if source == "sam":
        raise UsageError(
            "The masks of Segment Anything models differ: name the model as `avsb data maskige --segmenter "
            "sam` does when it is done, maskige: sam-<12 digits>."
        )
    if source not in SOURCES and not _SAM.fullmatch(source):
        raise unknown("source of maskiges", source, SOURCES)


def maskige_command(dataset: Dataset, source: str) -> str:
    """Return the command that makes a data set's maskiges."""
    options = "" if source in SEGMENTERS else " --segmenter sam --weights FOLDER"
    return f"avsb data maskige {dataset.root} --task {dataset.task.name}{options}"


@cache
def palette() -> NDArray[np.uint8]:
    """(256,3) uint8: the 150 colours of ADE20K, black from index 150 on."""
    colours = json.loads((files("avsbench_harness.data") / "ade20k_palette.json").read_text())
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    return table


def paint(masks: Masks) -> NDArray[np.uint8]:
    """Return masks (K,H,W) as a map of indices (H,W) in which smaller masks cover larger ones.

    The smallest mask has index 1, the next 2, and so on; 0 is outside of all masks. Indices from 256 on start
    again at 0, as in the published code.
    """
    height, width = masks.shape[1:]
    index = np.zeros((height, width), np.uint8)
    free = np.ones((height, width), np.bool_)
    for rank, mask in enumerate(sorted(masks, key=np.count_nonzero), start=1):
        index[mask & free] = rank % 256
        free &= ~mask
    return index


def maskige_files(dataset: Dataset, clip: Clip, source: str) -> list[Path]:
    """Return one file per frame of a clip, the authors' or the cached one; files may be missing.

    Raises:
        UsageError: the source is unknown.
        MissingDataError: a frame is missing, whose content is the key of its maskige in the cache.
    """
    if source == "published":
        return [published_file(dataset, frame) for frame in clip.frames]
    check_source(source)
    return [_cached_file(frame, source) for frame in clip.frames]


def published_file(dataset: Dataset, frame: Path) -> Path:
    """Return the path of a frame's maskige in the layout of the authors' code."""
    name = f"{frame.stem}_mask_color.png"
    if not dataset.task.semantic:
        inside = frame.relative_to(dataset.folder)  # <task>_data/visual_frames/...
        return (dataset.folder / inside.parts[0] / "pre_SAM_mask").joinpath(*inside.parts[2:-1], name)
    clip = frame.parent.parent.relative_to(dataset.folder)
    folder = dataset.folder / "pre_SAM_mask" / "AVSBench_semantic" / clip
    processed = folder / "processed_frames" / name
    return processed if processed.is_file() else folder / "frames" / name


def make_maskiges(
    clips: Sequence[Clip],
    segmenter: str | NamedSegmenter,
    *,
    jobs: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Segment every frame without a cached maskige; returns the number of maskiges made.

    Files are written atomically, so that an interrupted call can be resumed.

    Args:
        clips: the clips.
        segmenter: a name in :data:`SEGMENTERS`, or a segmenter with weights, which runs in this process.
        jobs: processes; by default one per core.
        progress: called with the number of clips done since the last call.
    """
    if isinstance(segmenter, str):
        if segmenter not in SEGMENTERS:
            raise unknown("segmenter", segmenter, SEGMENTERS)
        work = partial(_make_clip, segmenter, SEGMENTERS[segmenter])
    else:
        work, jobs = partial(_make_clip, segmenter.name, segmenter), 1
    made = 0
    for count in each_clip(work, clips, jobs):
        made += count
        if progress is not None:
            progress(1)
    return made


def read_maskige(path: Path, size: Size, fit: Fit = "squeeze") -> NDArray[np.uint8]:
    """Return a maskige (h,w,3) as uint8 RGB, resized by NEAREST so that colours are not mixed.

    Raises:
        MissingDataError: the file is missing; the message names the command that makes it.
    """
    try:
        image = load_image(path)
    except MissingDataError:
        raise MissingDataError(f"There is no maskige {path}; `avsb data maskige` makes maskiges.") from None
    return fit_maskige(image, size, fit)


def fit_maskige(image: Image.Image, size: Size, fit: Fit = "squeeze") -> NDArray[np.uint8]:
    """Return a decoded maskige as :func:`read_maskige` does."""
    return np.asarray(fit_image(image.convert("RGB"), size, fit, Image.Resampling.NEAREST))


def draw_maskige(frame: NDArray[np.uint8], segment: Callable[[NDArray[np.uint8]], Masks]) -> Image.Image:
    """Return the maskige of a frame (H,W,3), a palette image of its size."""
    picture = Image.fromarray(paint(segment(frame)))
    picture.putpalette(palette().tobytes())
    return picture


def _make_clip(source: str, segment: Callable[[NDArray[np.uint8]], Masks], clip: Clip) -> int:
    made = 0
    for frame in clip.frames:
        path = _cached_file(frame, source)
        if path.is_file():
            continue
        picture = draw_maskige(np.asarray(load_image(frame).convert("RGB")), segment)
        with atomic_write(path) as file:
            picture.save(file, "PNG")
        made += 1
    return made


def _cached_file(frame: Path, source: str) -> Path:
    try:
        digest = sha256_file(frame)
    except FileNotFoundError:
        raise MissingDataError(
            f"There is no frame {frame}; `avsb data check` lists what is missing."
        ) from None
    return cache_dir() / "maskiges" / f"{source}-{VERSION}" / digest[:2] / f"{digest}.png"


def missing_maskiges(dataset: Dataset, clips: Iterable[Clip], source: str) -> int:
    """Return the number of frames without a maskige from that source."""
    return sum(not path.is_file() for clip in clips for path in maskige_files(dataset, clip, source))
