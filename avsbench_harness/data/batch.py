"""The batch: the input of every model, for all tasks and methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

#: Mean and standard deviation of ImageNet's RGB channels on [0, 1], used to normalise images.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


Result = TypeVar("Result")


@dataclass(frozen=True)
class Batch:
    """A batch of ``B`` clips of ``T`` frames.

    Attributes:
        images: (B,T,3,H,W) float32, ImageNet-normalised; padded frames are zero.
        audio: (B,T,128) float32 VGGish embeddings. If the audio encoder is trained, the loader gives log-mel
            examples (B,T,1,96,64), which the engine encodes before the method receives the batch. If the
            recipe separates sources, there is an axis of S sources: (B,T,S,128) or (B,T,S,1,96,64).
        valid: (B,T) bool, ``False`` in padded frames; ``None`` if all frames are valid.
        maskige: (B,T,3,H,W) float32, COMBO's class-agnostic mask images.
        masks: (B,T,H,W) int64 class indices, 0 background (s4 and ms3: 1 for sounding objects).
        annotated: (B,T) bool, annotated frames; ``None`` if all valid frames are annotated.
        features: per input (``images``, ``maskige``) the maps (B,T,C,h,w) that a frozen backbone computes
            from it, fine to coarse, if they come from the cache; see :meth:`Model.maps`.
        shared: results of :meth:`once`; ``None``: they are computed anew.
    """

    images: Tensor
    audio: Tensor
    valid: Tensor | None = None
    maskige: Tensor | None = None
    masks: Tensor | None = None
    annotated: Tensor | None = None
    features: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    shared: dict[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.images.dim() != 5 or self.images.shape[2] != 3:
            raise ValueError(f"images must be (B,T,3,H,W), got {tuple(self.images.shape)}")
        clips, frames, _, height, width = self.images.shape
        if self.audio.dim() not in (3, 4, 5, 6) or self.audio.shape[:2] != (clips, frames):
            raise ValueError(f"audio must be ({clips},{frames},128), got {tuple(self.audio.shape)}")
        for name, shape in {
            "valid": (clips, frames),
            "annotated": (clips, frames),
            "maskige": (clips, frames, 3, height, width),
            "masks": (clips, frames, height, width),
        }.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"{name} must be {shape}, got {tuple(value.shape)}")
        for level in (level for levels in self.features.values() for level in levels):
            if level.dim() != 5 or level.shape[:2] != (clips, frames):
                raise ValueError(f"features must be ({clips},{frames},C,h,w), got {tuple(level.shape)}")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, T, H, W)."""
        clips, frames, _, height, width = self.images.shape
        return clips, frames, height, width

    def valid_frames(self) -> Tensor:
        """Return ``valid``, (B,T) bool, or all ones if it is ``None``."""
        if self.valid is not None:
            return self.valid
        return torch.ones(self.images.shape[:2], dtype=torch.bool, device=self.images.device)

    def annotated_frames(self) -> Tensor:
        """Return the annotated valid frames, (B,T) bool."""
        valid = self.valid_frames()
        return valid if self.annotated is None else self.annotated & valid

    def ground_truth(self) -> Tensor:
        """Return the masks, (B,T,H,W) int64.

        Raises:
            ValueError: the batch has no masks.
        """
        if self.masks is None:
            raise ValueError("This batch has no masks, so no loss can be computed on it.")
        return self.masks

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the batch on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def select(self, clips: slice) -> Batch:
        """Return the batch of a slice of its clips."""
        return self._map(lambda tensor: tensor[clips])

    def with_audio(self, audio: Tensor) -> Batch:
        """Return the batch with other audio."""
        return replace(self, audio=audio)

    def sharing(self) -> Batch:
        """Return the batch with a store for :meth:`once`, which its copies with other audio share."""
        return replace(self, shared={})

    def once(self, name: str, compute: Callable[[], Result]) -> Result:
        """Return the result of a function that depends on the pictures and not on the audio.

        In batches that are predicted with several recordings, see :meth:`sharing`, it is called for the first
        recording only. Results must not be changed in place.

        Args:
            name: unique in the network.
            compute: the function.
        """
        if self.shared is None or torch.compiler.is_compiling():
            return compute()
        if name not in self.shared:
            self.shared[name] = compute()
        result: Result = self.shared[name]
        return result

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        tensors = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        features = {name: [change(level) for level in levels] for name, levels in self.features.items()}
        return replace(self, **tensors, features=features, shared=None)
