"""Masks of a video as PNG files in the layout of AVSBench, and as COCO run lengths."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbench_harness.data.clip import is_clip_id
from avsbench_harness.data.masks import colourise
from avsbench_harness.files import atomic_write
from avsbench_harness.tasks import S4, Task
from avsbench_harness.video.mask_store import MaskStore
from avsbench_harness.video.overlay import names_of
from avsbench_harness.video.rle import coco_annotations
from avsbench_harness.video.windows import Timeline

#: Category under which S4's layout has the clips of a video.
CATEGORY = "video"


def clip_prefix(path: Path) -> str:
    """The beginning of a video's clip ids: the name of its file, without characters that ids cannot have."""
    name = "".join("_" if mark in "/\\:" or not mark.isprintable() else mark for mark in path.stem).strip()
    name = name.lstrip(".")[:80] or "video"
    return name if is_clip_id(name) else "video"


def mask_file(task: Task, prefix: str, timeline: Timeline, index: int) -> PurePosixPath:
    """The path of a prediction's mask below the data root.

    Clips have the task's length and are named ``<video>_<start>_<end>``, in ms; for more than one prediction
    per second each shifted sequence of frames gives clips of its own.
    """
    second, phase = divmod(index, timeline.fps)
    number, frame = divmod(second, timeline.length)
    start = round(1000 * (number * timeline.length + phase / timeline.fps))
    clip = f"{prefix}_{start}_{start + 1000 * timeline.length}"
    if task.semantic:
        return PurePosixPath("AVSBench_semantic/v2", clip, "labels_semantic", f"{frame}.png")
    if task is S4:
        folder = PurePosixPath("Single-source/s4_data/gt_masks/test", CATEGORY)
    else:
        folder = PurePosixPath("Multi-sources/ms3_data/gt_masks/test")
    return folder / clip / f"{clip}_{frame + 1}.png"


def write_masks(root: Path, task: Task, video: Path, timeline: Timeline, masks: MaskStore) -> Path:
    """Write the masks of all predictions as PNG files and as ``<video>.coco.json``, and return that file.

    Masks of s4 and ms3 have the values 0 and 255. Those of avss are written as class indices and as colours.

    Args:
        root: the data root.
        task: the task.
        video: the video; its name is used.
        timeline: its predictions.
        masks: their masks.
    """
    prefix = clip_prefix(video)
    for index in range(timeline.count):
        labels = masks.read(index)
        path = root / mask_file(task, prefix, timeline, index)
        _write_png(path, labels if task.semantic else labels * np.uint8(255))
        if task.semantic:
            _write_png(path.parent.parent / "labels_rgb" / path.name, colourise(labels))
    coco = root / f"{prefix}.coco.json"
    with atomic_write(coco) as file:
        for text in _coco(task, video, prefix, timeline, masks):
            file.write(text.encode())
    return coco


def _coco(task: Task, video: Path, prefix: str, timeline: Timeline, masks: MaskStore) -> Iterator[str]:
    """The parts of the JSON text; one mask is in memory."""
    names = list(enumerate(names_of(task)))[1:]
    categories = [{"id": label, "name": name} for label, name in names]
    yield f'{{"info": {_json({"description": video.name})},\n"categories": {_json(categories)},\n"images": ['
    for index in range(timeline.count):
        height, width = masks.read(index).shape
        image = {
            "id": index,
            "file_name": str(mask_file(task, prefix, timeline, index)),
            "width": width,
            "height": height,
            "seconds": float(timeline.time(index)),
        }
        yield f"{',' if index else ''}\n{_json(image)}"
    yield '],\n"annotations": ['
    number = 0
    for index in range(timeline.count):
        for annotation in coco_annotations(masks.read(index)):
            number += 1
            entry = {"id": number, "image_id": index, **annotation}
            yield f"{',' if number > 1 else ''}\n{_json(entry)}"
    yield "]}\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    with atomic_write(path) as file:
        Image.fromarray(pixels).save(file, "PNG")
