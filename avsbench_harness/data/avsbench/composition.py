"""The content of the clips of a composed data set: the files in ``objects`` of its root.

``objects/<task>/<split>/<clip>.json`` lists the objects and sounds of a clip, and the ``.png`` beside it
holds the masks of all objects, sounding or not, one frame below the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from avsbench_harness.data.avsbench.composed import DESCRIPTION
from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.data.clip import Clip
from avsbench_harness.data.errors import BadFileError
from avsbench_harness.data.pixels import load_image
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.files import read_json
from avsbench_harness.schema import Schema
from avsbench_harness.tasks import MASK_SIZE, Split

_Index = Annotated[int, Field(ge=0, lt=255)]
_Name = Annotated[str, Field(min_length=1, max_length=256)]


class ComposedObject(Schema):
    """A visible object: its kind, and the file of its picture."""

    kind: _Name
    picture: str


class ComposedSound(Schema):
    """The recordings of one sounding object.

    Attributes:
        object: index of the object.
        recordings: files, one after the other.
        level: attenuation or gain, dB.
        playing: per second, whether the recording plays.
        audible: per second, whether it plays and is loud enough to count.
    """

    object: _Index
    recordings: list[str]
    level: float
    playing: list[bool]
    audible: list[bool]


class Composition(Schema):
    """The objects and sounds of one clip.

    Attributes:
        sha256: digest of frames, labels and samples.
        objects: the visible objects, from the bottom to the top.
        sounds: the sounds.
    """

    sha256: str
    objects: list[ComposedObject]
    sounds: list[ComposedSound]

    @property
    def sounding_kinds(self) -> frozenset[str]:
        """The kinds of all objects that sound at any time."""
        return frozenset(self.objects[sound.object].kind for sound in self.sounds)


def read_composition(dataset: Dataset, split: Split, clip: Clip) -> Composition:
    """Read the objects and sounds of a clip of a composed data set.

    Raises:
        MissingDataError: the file is missing.
        BadFileError: the file is malformed.
    """
    path = _file(dataset, split, clip, ".json")
    try:
        content = read_json(path)
        if not isinstance(content, dict):
            raise BadFileError(path, "is not a JSON object")
        found = Composition.parse(content, str(path))
    except FileNotFoundError:
        raise MissingDataError(f"There is no file {path}; compose the data set again.") from None
    except BadFileError:
        raise
    except UsageError as error:
        raise BadFileError(path, f"is not the description of a composed clip: {error}") from error
    if any(sound.object >= len(found.objects) for sound in found.sounds):
        raise BadFileError(path, "has a sound of an object that it does not list")
    return found


def read_objects(dataset: Dataset, split: Split, clip: Clip) -> NDArray[np.uint8]:
    """Read the visible object of each pixel of a clip of a composed data set.

    Returns:
        (T,224,224) uint8: 1 + the object's index in :attr:`Composition.objects`, 0 for the background.

    Raises:
        MissingDataError: the file is missing.
        BadFileError: the file cannot be read, or has another shape.
    """
    path = _file(dataset, split, clip, ".png")
    pixels = np.asarray(load_image(path))
    frames = len(clip.frames)
    if pixels.dtype != np.uint8 or pixels.shape != (frames * MASK_SIZE, MASK_SIZE):
        raise BadFileError(
            path,
            f"has the shape {pixels.shape}, where {frames} grey frames of {MASK_SIZE} pixels, one below the "
            "other, are expected",
        )
    return pixels.reshape(frames, MASK_SIZE, MASK_SIZE)


def _file(dataset: Dataset, split: Split, clip: Clip, suffix: str) -> Path:
    """The file of a clip; in avss the clip's name in it lacks the start and end of the ``uid``."""
    name = clip.id
    if dataset.task.semantic:
        name = name.removesuffix(f"_0_{1000 * len(clip.frames)}")
    return _root(dataset) / "objects" / dataset.task.name / split / f"{name}{suffix}"


def _root(dataset: Dataset) -> Path:
    """The folder with the description of the data set."""
    return next((folder for folder in _roots(dataset) if (folder / DESCRIPTION).is_file()), dataset.root)


def _roots(dataset: Dataset) -> Iterator[Path]:
    yield from (dataset.folder, dataset.folder.parent, dataset.root)
