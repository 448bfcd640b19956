"""VGGish, the audio encoder of all published methods here, with the published state-dict names.

Hershey et al., "CNN Architectures for Large-Scale Audio Classification" (ICASSP 2017). All five papers use
it frozen, with weights that were trained on YouTube-8M and converted from TensorFlow.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

#: Length of an audio embedding.
EMBEDDING_SIZE = 128


class PcaQuantizer(nn.Module):
    """The published post-processing of embeddings: PCA, clamping to [-2, 2], 8 bits.

    No method of this benchmark uses it. The two tensors have the published names.
    """

    pca_eigen_vectors: Tensor
    pca_means: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pca_eigen_vectors", torch.eye(EMBEDDING_SIZE))
        self.register_buffer("pca_means", torch.zeros(EMBEDDING_SIZE, 1))

    def project(self, embeddings: Tensor) -> Tensor:
        """Principal components (N,128) of embeddings (N,128), before clamping."""
        return (embeddings - self.pca_means.T) @ self.pca_eigen_vectors.T

    def forward(self, embeddings: Tensor) -> Tensor:
        """Quantise embeddings (N,128) to integers 0..255, as float."""
        return torch.round((self.project(embeddings).clamp(-2.0, 2.0) + 2.0) * (255.0 / 4.0))


class VGGish(nn.Module):
    """Log-mel examples (N,1,96,64) to non-negative embeddings (N,128).

    72,141,184 parameters. Random weights are Kaiming normal with zero biases: with PyTorch's default
    initialisation each of the nine ReLU layers shrinks the signal about 2.4 times, so that all embeddings
    are nearly equal.

    Args:
        postprocess: apply :class:`PcaQuantizer` (``pproc`` in the state dict); no method here does.
    """

    def __init__(self, postprocess: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(1, 64),
            nn.MaxPool2d(2),
            *_convolution(64, 128),
            nn.MaxPool2d(2),
            *_convolution(128, 256),
            *_convolution(256, 256),
            nn.MaxPool2d(2),
            *_convolution(256, 512),
            *_convolution(512, 512),
            nn.MaxPool2d(2),
        )
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise((512 * 6 * 4, 4096, 4096, EMBEDDING_SIZE)):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU(inplace=True)]
        self.embeddings = nn.Sequential(*layers)
        self.pproc = PcaQuantizer() if postprocess else None
        self.apply(_initialise)

    def forward(self, log_mel: Tensor) -> Tensor:
        """(N,1,96,64) log-mel examples to (N,128) embeddings, N >= 0."""
        maps = self.features(log_mel)
        # The weights come from TensorFlow, where the channel is the last axis.
        embeddings: Tensor = self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))
        return embeddings if self.pproc is None else self.pproc(embeddings)


def _convolution(channels_in: int, channels_out: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.ReLU(inplace=True)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        assert module.bias is not None
        nn.init.zeros_(module.bias)
