"""Maps of a frozen backbone in the cache: computed once per clip, read in every epoch and by other runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from avsbench_harness.data.cache.eviction import make_room
from avsbench_harness.data.cache.store import ArrayStore, array_key
from avsbench_harness.errors import AvsbError
from avsbench_harness.files import cache_dir

_FLOAT_BYTES = 4


class CachedFeatures:
    """The maps of the clips of one data set, from one backbone. It can be pickled.

    Args:
        name: of the collection; made of everything that determines the maps.
        shapes: per input (``images``, ``maskige``) the shapes (C,h,w) of its maps.

    Raises:
        OSError: the cache folder cannot be written.
    """

    def __init__(self, name: str, shapes: Mapping[str, Sequence[Sequence[int]]]) -> None:
        self.shapes = {source: [tuple(shape) for shape in levels] for source, levels in shapes.items()}
        self.store = ArrayStore(cache_dir() / "features" / name)
        self.store.open()

    def missing(self, clips: int, views: Sequence[bool]) -> list[tuple[int, bool]]:
        """Return the (clip, flipped) pairs that are not cached, of the first ``clips`` clips in all views."""
        pairs = {_key(index, flipped): (index, flipped) for index in range(clips) for flipped in views}
        return [pairs[key] for key in self.store.missing(pairs)]

    def make_room(self, frames: int) -> str | None:
        """Make room for the maps of ``frames`` frames, see :func:`.eviction.make_room`."""
        values = sum(prod(shape) for levels in self.shapes.values() for shape in levels)
        return make_room(frames * values * _FLOAT_BYTES)

    def write(self, index: int, flipped: bool, maps: Mapping[str, Sequence[Tensor]]) -> None:
        """Store the maps (t,C,h,w) of a clip.

        Raises:
            OSError: the disk is full, or the files cannot be written.
        """
        rows = [level.flatten(1) for source in self.shapes for level in maps[source]]
        self.store.store(_key(index, flipped), torch.cat(rows, dim=1).float().cpu().numpy())

    def read(self, index: int, flipped: bool) -> dict[str, list[Tensor]]:
        """Return the maps (t,C,h,w) of a clip, per input.

        Raises:
            AvsbError: they were removed or damaged.
        """
        stored = self.store.load(_key(index, flipped), f"The backbone's maps of clip {index}")
        if stored is None:
            raise AvsbError(
                f"The backbone's maps of clip {index} in {self.store.folder} were removed or damaged; rerun "
                "the same command to compute them again."
            )
        every = [shape for levels in self.shapes.values() for shape in levels]
        ends = np.cumsum([prod(shape) for shape in every])
        flat = torch.from_numpy(stored).tensor_split(ends[:-1].tolist(), dim=1)
        levels = iter(part.reshape(-1, *shape) for part, shape in zip(flat, every, strict=True))
        return {source: [next(levels) for _ in shapes] for source, shapes in self.shapes.items()}


def _key(index: int, flipped: bool) -> str:
    return array_key(clip=index, view="flipped" if flipped else "plain")
