"""The audio encoders by name.

``vggish``; ``compact``, a small one for training from scratch; and ``compact-esc10``, the same network with
weights that are part of the package: it was trained to tell the ten kinds of ESC-10 apart, on folds 1 to 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from avsbench_harness.errors import UsageError, unknown
from avsbench_harness.nn.vggish import EMBEDDING_SIZE, VGGish
from avsbench_harness.weights.state_files import looks_like, read_state
from avsbench_harness.weights.strict import check_numbers


class CompactAudioEncoder(nn.Module):
    """Log-mel examples (N,1,96,64) to embeddings (N,128): 0.4 M parameters, for runs without VGGish weights.

    Four strided convolutions, then mean and maximum over time; the frequency axis is kept. Group and layer
    norms make a clip's embedding independent of the other clips of its batch. Embeddings are non-negative
    like those of VGGish.
    """

    #: Log-mels are between log 0.01 = -4.6 (silence) and about 2; normalised to about [-1, 2].
    _CENTRE, _SCALE = -2.3, 2.3

    def __init__(self) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        widths = (1, 32, 64, 128, 128)
        for channels_in, channels_out in pairwise(widths):
            stages += [
                nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(8, channels_out),
                nn.ReLU(inplace=True),
            ]
        self.features = nn.Sequential(*stages)
        bands = 64 // 2**4
        self.head = nn.Sequential(
            nn.Linear(2 * bands * widths[-1], EMBEDDING_SIZE), nn.LayerNorm(EMBEDDING_SIZE), nn.ReLU()
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        """(N,1,96,64) log-mel examples to (N,128) embeddings."""
        maps = self.features((log_mel - self._CENTRE) / self._SCALE)  # (N,128,6,4)
        embeddings: Tensor = self.head(torch.cat([maps.mean(2), maps.amax(2)], dim=1).flatten(1))
        return embeddings


_ENCODERS: dict[str, type[nn.Module]] = {
    "vggish": VGGish,
    "compact": CompactAudioEncoder,
    "compact-esc10": CompactAudioEncoder,
}


def build_audio_encoder(name: str, weights: Path | None = None) -> nn.Module:
    """Build an audio encoder, (N,1,96,64) to (N,128), with the weights of a file or random ones.

    Args:
        name: ``vggish``, ``compact`` or ``compact-esc10``.
        weights: a state dict as ``.pth`` or ``.safetensors``.

    Raises:
        UsageError: the name is unknown, or the file does not hold the weights of that encoder.
    """
    if name not in _ENCODERS:
        raise unknown("audio encoder", name, _ENCODERS)
    if weights is None:
        return _ENCODERS[name]()
    state = read_state(weights)
    try:
        state = fit_audio_state(name, state)
    except UsageError as error:
        raise UsageError(f"{weights}: {error}") from None
    with torch.device("meta"):  # without drawing 72 million random numbers
        encoder = _ENCODERS[name]()
    encoder.load_state_dict(state, assign=True)
    return encoder


def fit_audio_state(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Check a state dict against an encoder's names and shapes, and return it as float32.

    The PCA parameters (``pproc.*``) in some copies of VGGish's weights are left out.

    Raises:
        UsageError: it is of another model, which the message names, or holds values that are not finite or
            not floating-point.
    """
    with torch.device("meta"):
        wanted = _ENCODERS[name]().state_dict()
    found = {key: tensor for key, tensor in state.items() if not key.startswith("pproc.")}
    wrong = [
        key
        for key in {**wanted, **found}
        if key not in found or key not in wanted or found[key].shape != wanted[key].shape
    ]
    if wrong:
        raise UsageError(
            f"These weights do not fit '{name}': '{wrong[0]}' is missing, unknown or of another shape. "
            f"They look like {looks_like(state)}."
        )
    check_numbers(found, wanted, f"'{name}'")
    return {key: tensor.float() for key, tensor in found.items()}
