"""The sounding objects of a clip, with class, masks and boxes (section 3.5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Objects:
    """The G objects of one clip over its A annotated frames.

    Attributes:
        labels: (G,) int64, index among the classes without background.
        masks: (G,A,H,W) float, 0 or 1.
        present: (G,A) bool, whether the object's mask in the frame is not empty.
        boxes: (G,A,4): centre x, centre y, width, height relative to the image; zeros where not present.
    """

    labels: Tensor
    masks: Tensor
    present: Tensor
    boxes: Tensor


def clip_objects(masks: Tensor) -> Objects:
    """Return the objects of a clip, one for every class in it.

    For s4 and ms3 all sounding pixels are one object of the only class; for avss all pixels of a class are
    one object, as semantic ground truth does not separate instances.

    Args:
        masks: (A,H,W) int64 class indices, 0 background.
    """
    labels = masks.unique()
    labels = labels[labels > 0]
    found = masks[None] == labels[:, None, None, None]
    return Objects(labels - 1, found.float(), found.flatten(2).any(dim=2), mask_boxes(found))


def mask_boxes(masks: Tensor) -> Tensor:
    """Return the tightest boxes around masks, including the pixels' edges.

    Args:
        masks: (...,H,W) bool.

    Returns:
        (...,4): centre x, centre y, width, height relative to the image; zeros for empty masks.
    """
    left, right = _extent(masks.any(dim=-2))
    top, bottom = _extent(masks.any(dim=-1))
    boxes = torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], dim=-1)
    return boxes * masks.flatten(-2).any(dim=-1, keepdim=True)


def _extent(line: Tensor) -> tuple[Tensor, Tensor]:
    """Return start and end of the true entries of lines (...,L), relative to their length."""
    length = line.shape[-1]
    steps = line.to(torch.int64)
    begin = steps.argmax(dim=-1)
    end = length - steps.flip(-1).argmax(dim=-1)
    return begin / length, end / length
