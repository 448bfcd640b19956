"""The weights that a run starts from, as files on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avsbench_harness.engine.run import AudioSpec
from avsbench_harness.errors import MissingDataError
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.weights import store
from avsbench_harness.weights.pretrained import pretrained_weights
from avsbench_harness.weights.sources import Source
from avsbench_harness.weights.spec import BackboneWeightsSpec


@dataclass(frozen=True)
class WeightFiles:
    """The weights that a run starts from.

    Attributes:
        audio: the audio encoder.
        backbone: the ImageNet weights of the backbone; ``None`` if it does not start from them.
        files: the files, with the keys of :attr:`.Run.weights`.
    """

    audio: AudioSpec
    backbone: BackboneWeightsSpec | None
    files: dict[str, Path]


def find_files(recipe: Recipe, backbone: str, source: Source | None, *, trained: bool) -> WeightFiles:
    """Find the weights that a run starts from.

    Args:
        recipe: names the audio encoder, and decides whether the backbone is pretrained.
        backbone: alias or timm name.
        source: given weights; ``None`` without.
        trained: whether training starts from the given weights; else they predict.

    Raises:
        MissingDataError: a file is not on this machine; the message has the command that adds it.
    """
    audio, files = _audio(recipe) if source is None or trained else _audio_of(source, recipe)
    if source is not None:
        files["init" if trained else "weights"] = source.path
    imagenet = None
    if recipe.backbone.pretrained:
        files["backbone"], imagenet = pretrained_weights(backbone)
    return WeightFiles(audio, imagenet, files)


def _audio(recipe: Recipe) -> tuple[AudioSpec, dict[str, Path]]:
    """The audio encoder: frozen if the recipe freezes it and its weights are in the store, else trained."""
    name = recipe.audio.encoder
    path = store.find(name)
    trained = path is None or not recipe.audio.freeze
    digest = store.file_hash(path) if path is not None else None
    return AudioSpec(encoder=name, weights=digest, trained=trained), {} if path is None else {"audio": path}


def _audio_of(source: Source, recipe: Recipe) -> tuple[AudioSpec, dict[str, Path]]:
    """The audio encoder of given weights: included in them, or frozen from the store.

    Raises:
        MissingDataError: it is neither included nor in the store.
    """
    name = recipe.audio.encoder
    if source.has_encoder:
        return AudioSpec(encoder=name, weights=None, trained=True), {}
    path = store.find(name)
    if path is None:
        raise MissingDataError(
            f"{source.spec.file} does not include its audio encoder, {name}, and the store has no weights "
            f"of it; `avsb weights add {name} FILE` adds them."
        )
    return AudioSpec(encoder=name, weights=store.file_hash(path), trained=False), {"audio": path}
