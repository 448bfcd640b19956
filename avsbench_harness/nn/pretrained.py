"""Adding the pretrained weights of an encoder or backbone to the store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from avsbench_harness.nn.audio_encoder import fit_audio_state
from avsbench_harness.weights import store, timm_names


def add_weights(name: str, file: Path, *, ema: bool = False, custom: bool = False) -> store.Entry:
    """Check a weights file against its model and add it to the store, see :func:`.store.add`."""
    return store.add(name, file, _fit, ema=ema, custom=custom)


def _fit(model: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if model in store.AUDIO_ENCODERS:
        return fit_audio_state(model, state)
    return timm_names.fit_state(model, state)
