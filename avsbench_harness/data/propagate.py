"""Pseudo-masks of S4 training frames that are not annotated, for CATR* (Li et al., ACM MM 2023, section 5.2).

On S4 these are the masks of frames 2 to 5. On MS3 the S4 training clips with pseudo-masks are added to the
training set.

The authors propagate each clip's first mask with AOT, a trained tracker, and publish neither its weights nor
its masks. Masks of any such source can be imported; as a replacement, optical flow of scikit-image propagates
the first mask. The results differ, so the source is part of a run's recipe.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.data.clip import Clip
from avsbench_harness.data.masks import read_object_mask, resize_mask
from avsbench_harness.data.parallel import each_clip
from avsbench_harness.data.pixels import load_image
from avsbench_harness.errors import MissingDataError, UsageError, unknown
from avsbench_harness.files import atomic_write, cache_dir
from avsbench_harness.tasks import S4, Task

#: Changes whenever a flow gives other masks for the same clip.
VERSION = 1

#: (H,W) float32 grey frames -> (2,H,W) flow: displacement of each pixel of the first, rows then columns.
Flow = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]
Mask = NDArray[np.uint8]

_IMPORTED = re.compile(r"masks-[0-9a-f]{12}")


def tvl1(frame: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Total-variation flow of Zach, Pock and Bischof; smooth and slow."""
    from skimage.registration import optical_flow_tvl1

    return np.asarray(optical_flow_tvl1(frame, other, dtype=np.float32))


def ilk(frame: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Iterative Lucas-Kanade flow; fast."""
    from skimage.registration import optical_flow_ilk

    return np.asarray(optical_flow_ilk(frame, other, dtype=np.float32))


#: Flows that propagate masks, by name.
FLOWS: dict[str, Flow] = {"tvl1": tvl1, "ilk": ilk}


def check_supplement(source: str, task: Task) -> None:
    """Check the name of a source of pseudo-masks, and that the task supports them.

    Raises:
        UsageError: the source is unknown, or the task is neither S4 nor MS3.
    """
    if task.semantic:
        raise UsageError(
            f"The recipe's supplement is '{source}', but the pseudo-masks of s4 have no classes; leave it "
            f"out for {task.name}."
        )
    if source not in FLOWS and not _IMPORTED.fullmatch(source):
        raise unknown("source of pseudo-masks", source, FLOWS)


def _check_s4(dataset: Dataset) -> None:
    if dataset.task is not S4:
        raise UsageError(f"Only s4 has training frames without masks; {dataset.task.name} has none.")


def propagate_command(dataset: Dataset, source: str) -> str:
    """Return the command that makes or imports a data set's pseudo-masks."""
    option = f"--flow {source}" if source in FLOWS else "--from FOLDER"
    return f"avsb data propagate {dataset.root} {option}"


def propagate_mask(mask: Mask, frames: Sequence[NDArray[np.uint8]], flow: Flow) -> list[Mask]:
    """Propagate the first frame's mask through the other frames, from each frame to the next.

    Args:
        mask: (H,W) uint8 in {0, 1} of the first frame.
        frames: (H,W,3) uint8 RGB, including the first frame.
        flow: the optical flow.

    Returns:
        One (H,W) uint8 mask in {0, 1} for each frame after the first.
    """
    from skimage.color import rgb2gray
    from skimage.transform import warp

    grey = [rgb2gray(frame).astype(np.float32) for frame in frames]
    places = np.indices(mask.shape, dtype=np.float32)
    soft, propagated = mask.astype(np.float32), []
    for before, now in itertools.pairwise(grey):
        # The content of a pixel was at the pixel plus the flow before. The mask is not thresholded between
        # frames, because its border would shrink with every step.
        soft = warp(soft, places + flow(now, before), order=1, mode="edge")
        propagated.append((soft >= 0.5).astype(np.uint8))
    return propagated


def pseudo_mask_folder(dataset: Dataset, source: str) -> Path:
    """Return the cache folder of a source's masks for this data set, in the layout of S4's ``gt_masks``."""
    name = f"{source}-{VERSION}" if source in FLOWS else source
    return cache_dir() / "supplements" / dataset.fingerprint() / name


def with_pseudo_masks(dataset: Dataset, clips: Sequence[Clip], source: str) -> list[Clip]:
    """Return S4 training clips with pseudo-masks for the frames that are not annotated.

    Raises:
        UsageError: the source is unknown, or the data set is not of S4.
        MissingDataError: some are missing; the message names the command that makes them.
    """
    _check_s4(dataset)
    check_supplement(source, dataset.task)
    missing = missing_pseudo_masks(dataset, clips, source)
    if missing:
        raise MissingDataError(
            f"There is no pseudo-mask {missing[0]}; `{propagate_command(dataset, source)}` makes them."
        )
    folder = pseudo_mask_folder(dataset, source)
    found = []
    for clip in clips:
        given = {frame: folder / path for frame, path in missing_mask_paths(clip).items()}
        found.append(replace(clip, masks=tuple(given.get(k, mask) for k, mask in enumerate(clip.masks))))
    return found


def missing_pseudo_masks(dataset: Dataset, clips: Sequence[Clip], source: str) -> list[Path]:
    """Return the paths of a source's pseudo-masks that are missing."""
    folder = pseudo_mask_folder(dataset, source)
    wanted = [folder / path for clip in clips for path in missing_mask_paths(clip).values()]
    return [path for path in wanted if not path.is_file()]


def missing_mask_paths(clip: Clip) -> dict[int, Path]:
    """Return per frame that is not annotated the path of its mask, relative to S4's ``gt_masks``."""
    folder = Path(*_first_mask(clip).parent.parts[-3:])  # train/CLASS/CLIP
    return {k: folder / clip.frames[k].name for k, mask in enumerate(clip.masks) if mask is None}


def propagate(
    dataset: Dataset,
    flow: str,
    *,
    out: Path | None = None,
    jobs: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Propagate the first masks of all training clips; returns the number of masks made.

    Files are written atomically and existing ones are kept, so that an interrupted call can be resumed.

    Args:
        dataset: an S4 data set.
        flow: a name in :data:`FLOWS`.
        out: folder for the masks; by default in the cache.
        jobs: processes; by default one per core.
        progress: called with the number of clips done since the last call.

    Raises:
        UsageError: the flow is unknown, or the task is not S4.
        MissingDataError, UnreadableImageError: a frame or a first mask is missing or damaged.
    """
    if flow not in FLOWS:
        raise unknown("flow", flow, FLOWS)
    _check_s4(dataset)
    work = partial(_propagate_clip, flow, out or pseudo_mask_folder(dataset, flow))
    return _work(work, dataset, jobs, progress)


def import_masks(
    dataset: Dataset,
    folder: Path,
    *,
    out: Path | None = None,
    jobs: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[str, int]:
    """Import masks from a folder in the layout of ``gt_masks``, or from a data root with such a folder.

    Args:
        dataset: an S4 data set.
        folder: contains ``train/CLASS/CLIP/CLIP_2.png`` and so on, black and white, of any size.
        out: folder for the masks; by default in the cache.
        jobs: processes; by default one per core.
        progress: called with the number of clips done since the last call.

    Returns:
        The name of the source for recipes, made of a hash of the masks, and the number of new masks.

    Raises:
        UsageError: the task is not S4.
        MissingDataError: a mask is missing.
        MaskValueError: a mask has other colours than black and white.
    """
    _check_s4(dataset)
    given = _mask_folder(folder)
    clips = dataset.clips("train")
    digest = hashlib.sha256()
    for path in sorted(path for clip in clips for path in missing_mask_paths(clip).values()):
        digest.update(path.as_posix().encode() + b"\0" + _bytes(given / path))
    source = f"masks-{digest.hexdigest()[:12]}"
    work = partial(_import_clip, given, out or pseudo_mask_folder(dataset, source))
    return source, _work(work, dataset, jobs, progress)


def _work(
    work: Callable[[Clip], int],
    dataset: Dataset,
    jobs: int | None,
    progress: Callable[[int], None] | None,
) -> int:
    made = 0
    for count in each_clip(work, dataset.clips("train"), jobs):
        made += count
        if progress is not None:
            progress(1)
    return made


def _propagate_clip(flow: str, out: Path, clip: Clip) -> int:
    wanted = {frame: out / path for frame, path in missing_mask_paths(clip).items()}
    if all(path.is_file() for path in wanted.values()):
        return 0
    frames = [np.asarray(load_image(path).convert("RGB")) for path in clip.frames]
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1:
        raise UsageError(f"The frames of clip {clip.id} differ in size, so no mask can be propagated.")
    height, width, _ = frames[0].shape
    mask = resize_mask(read_object_mask(_first_mask(clip)), (width, height))
    made = 0
    for frame, propagated in enumerate(propagate_mask(mask, frames, FLOWS[flow]), start=1):
        if frame in wanted and not wanted[frame].is_file():
            _write(wanted[frame], propagated)
            made += 1
    return made


def _import_clip(given: Path, out: Path, clip: Clip) -> int:
    imported = 0
    for path in missing_mask_paths(clip).values():
        mask = read_object_mask(given / path)
        if not (out / path).is_file():
            _write(out / path, mask)
            imported += 1
    return imported


def _first_mask(clip: Clip) -> Path:
    """The mask of the first frame, which is annotated in every S4 training clip."""
    assert clip.masks[0] is not None
    return clip.masks[0]


def _write(path: Path, mask: Mask) -> None:
    with atomic_write(path) as file:
        Image.fromarray(mask * np.uint8(255)).save(file, "PNG")


def _mask_folder(folder: Path) -> Path:
    """The folder that contains ``train``: the given one, or ``gt_masks`` in the official tree."""
    inside = ("", "gt_masks", "s4_data/gt_masks", "Single-source/s4_data/gt_masks")
    for place in inside:
        if (folder / place / "train").is_dir():
            return folder / place
    raise MissingDataError(f"{folder} has no folder 'train' with masks in the layout of S4's gt_masks.")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise MissingDataError(
            f"There is no mask {path}; every frame of a training clip but the first needs one."
        ) from None
