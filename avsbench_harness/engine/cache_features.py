"""The recipe's ``backbone.cache``: the maps of a frozen backbone are computed before the training."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import timm
import torch
from torch import Tensor, nn

from avsbench_harness.console import track
from avsbench_harness.data.cache.features import CachedFeatures
from avsbench_harness.data.loader import ClipDataset, network_inputs
from avsbench_harness.data.transforms import flip
from avsbench_harness.engine.interrupt import StopRequest
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import AvsbError
from avsbench_harness.files import sha256_json
from avsbench_harness.nn.model import Model, evaluation_mode
from avsbench_harness.tasks import Split

logger = logging.getLogger(__name__)

#: Changes whenever the code computes other maps from the same weights and pixels.
VERSION = 1


def cache_features(
    run: Run, model: Model, dataset: ClipDataset, split: Split, stop: StopRequest | None = None
) -> ClipDataset:
    """Attach the maps of the frozen backbone to a data set, if the recipe has ``backbone.cache``.

    Maps that are not cached are computed, in evaluation mode and full precision, clip by clip, so that a
    clip's maps do not depend on the others; with flips in the augmentation also those of flipped clips. If
    the cache cannot be written or there is too little room, the reason is logged and the backbone is
    computed in every step.

    Args:
        run: the run.
        model: its network on its device, with the weights that the run uses.
        dataset: the clips; changed in place.
        split: for the progress bar.
        stop: checked between clips.

    Raises:
        AvsbError: the network has no ``encode`` that gives maps.
        Interrupted: a stop was requested; the maps computed so far are kept.
    """
    if not run.recipe.backbone.cache or not len(dataset):
        return dataset
    views = [False, True] if dataset.augment.flip else [False]
    with _without_gradients(model):
        try:
            shapes = _shapes(model, dataset, run.device)
            features = CachedFeatures(_name(run, model, dataset, shapes), shapes)
            missing = features.missing(len(dataset), views)
            room = features.make_room(sum(len(dataset.clips[index].frames) for index, _ in missing))
            if room is not None:
                logger.warning(f"{room} Until then the backbone is computed in every step.")
                return dataset
            if missing:
                _fill(features, model, dataset, views, run.device, split, stop)
        except OSError as error:
            logger.warning(
                f"The cache cannot be written ({error.strerror}); the backbone is computed in every step."
            )
            return dataset
    dataset.features = features
    return dataset


def _fill(
    features: CachedFeatures,
    model: Model,
    dataset: ClipDataset,
    views: list[bool],
    device: str,
    split: Split,
    stop: StopRequest | None,
) -> None:
    """Compute what is missing; wait if another process does so."""
    with features.store.filling:
        for index, flipped in track(features.missing(len(dataset), views), f"backbone {split}"):
            if stop:
                raise stop.error("The maps computed so far are kept; rerun the same command to resume.")
            pixels = dataset.source.read(index)
            inputs = network_inputs(flip(pixels) if flipped else pixels, dataset.size)
            features.write(index, flipped, _encode(model, inputs, device))


def _encode(model: Model, inputs: Mapping[str, Tensor], device: str) -> dict[str, list[Tensor]]:
    return {source: model.encode(images.to(device), source) for source, images in inputs.items()}


def _shapes(model: Model, dataset: ClipDataset, device: str) -> dict[str, list[tuple[int, ...]]]:
    """The shapes (C,h,w) of the maps of each input, from the first frame of the first clip."""
    inputs = network_inputs(dataset.source.read(0), dataset.size)
    maps = _encode(model, {source: images[:1] for source, images in inputs.items()}, device)
    levels = [level for found in maps.values() for level in found]
    if not all(isinstance(level, Tensor) and level.dim() == 4 for level in levels):
        raise AvsbError(
            f"backbone.cache needs a network whose `encode` gives maps (N,C,h,w), and that of "
            f"{type(model).__name__} does not; leave backbone.cache out."
        )
    return {source: [tuple(level.shape[1:]) for level in found] for source, found in maps.items()}


def _name(run: Run, model: Model, dataset: ClipDataset, shapes: Mapping[str, list[tuple[int, ...]]]) -> str:
    """The collection's name, from all that determines the maps: methods with the same backbone share it."""
    parts: dict[str, Any] = {
        "version": VERSION,
        "timm": timm.__version__,
        "weights": _state_hash(model.backbone),
        "pixels": dataset.source.key(),
        "shapes": shapes,
    }
    if type(model).encode is not Model.encode:  # it may depend on the options
        parts |= {"method": run.spec.method, "options": run.recipe.options}
    return f"{run.task.name}-{dataset.size}-{sha256_json(parts)[:16]}"


def _state_hash(module: nn.Module) -> str:
    """SHA-256 of the names and values of a module's parameters and buffers."""
    digest = hashlib.sha256()
    for name, values in sorted(module.state_dict().items()):
        digest.update(f"{name} {values.dtype} {tuple(values.shape)} ".encode())
        digest.update(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def _without_gradients(model: Model) -> Iterator[None]:
    with evaluation_mode(model), torch.no_grad():
        yield
