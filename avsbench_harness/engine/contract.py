"""The contract of a method's network: its losses and predictions are checked when the engine uses them.

Types, shapes and devices are checked on every call, which costs no synchronisation with the device. Gradients
and the values of a prediction are checked on the first batch of a training, before its weights change;
predictions are checked again when they are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import AvsbError
from avsbench_harness.tasks import Task
from avsbench_harness.tracking.json_log import KEYS

#: Distance from [0, 1] that is rounding noise in a probability of float32.
ROUNDING = 1e-4

#: Names in a training log that are not those of a loss term or of diagnostics.
RESERVED = KEYS


def rounding(precision: str) -> float:
    """Distance from [0, 1] that is rounding noise in a probability, for a recipe's ``precision``."""
    reduced = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return ROUNDING if reduced is None else max(ROUNDING, torch.finfo(reduced).eps)


def check_losses(losses: object, batch: Batch, name: str) -> dict[str, Tensor]:
    """Return the losses if they are a dict of named scalars.

    Args:
        losses: what the network returned.
        batch: the batch that they are of.
        name: of the method, for the error.

    Raises:
        AvsbError: they are not.
    """
    want = f"`losses` of {name} must return a dict of names and scalar tensors"
    if not isinstance(losses, Mapping):
        raise AvsbError(f"{want}, and it returned {_describe(losses)}.")
    if not losses:
        raise AvsbError(f"{want}, and the dict is empty.")
    terms: dict[str, Tensor] = {}
    for key, term in losses.items():
        if not isinstance(key, str) or not key.isprintable() or key in RESERVED:
            raise AvsbError(f"{want}, and a term has the name {key!r}.")
        if key == "loss" and len(losses) > 1:
            raise AvsbError(f"{want}, and one of several is called 'loss', the name of their sum; rename it.")
        if not isinstance(term, Tensor) or term.dim() != 0 or not term.is_floating_point():
            raise AvsbError(f"{want}, and '{key}' is {_describe(term)}.")
        if term.device != batch.images.device:
            raise AvsbError(f"{want} on {batch.images.device}, and '{key}' is on {term.device}.")
        terms[key] = term
    return terms


def check_diagnostics(values: object, terms: Iterable[str], name: str) -> dict[str, float]:
    """Return the diagnostics if they are a dict of names and numbers.

    Args:
        values: what the network returned.
        terms: names of the losses, which share the log with them.
        name: of the method, for the error.

    Raises:
        AvsbError: they are not.
    """
    want = f"`diagnostics` of {name} must return a dict of names and numbers"
    if not isinstance(values, Mapping):
        raise AvsbError(f"{want}, and it returned {_describe(values)}.")
    taken = {*RESERVED, *terms}
    for key, value in values.items():
        if not isinstance(key, str) or not key.isprintable() or key in taken:
            raise AvsbError(f"{want} of their own, and one is called {key!r}.")
        if not isinstance(value, int | float) and not (isinstance(value, Tensor) and value.dim() == 0):
            raise AvsbError(f"{want}, and '{key}' is {_describe(value)}.")
    return dict(values)


def check_gradients(parameters: Iterable[nn.Parameter], batch: Batch, name: str) -> None:
    """Refuse losses of the first batch that train nothing, after their backward pass.

    Args:
        parameters: of the network.
        batch: the batch; one without annotated frames has no gradient.
        name: of the method, for the error.

    Raises:
        AvsbError: no parameter has a gradient other than zero.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients and any(bool(gradient.any()) for gradient in gradients):
        return
    if batch.annotated_frames().any():
        raise AvsbError(
            f"The losses of {name} train nothing: no parameter has a gradient other than zero on the first "
            "batch. Correct `losses`: its terms must depend on trainable parameters, without detach() or "
            "no_grad()."
        )


def check_prediction(prediction: object, batch: Batch, task: Task, name: str) -> Tensor:
    """Return a prediction if its type, shape, dtype and device are right; values are not read.

    Args:
        prediction: what the network returned.
        batch: the batch that it is of.
        task: of the network.
        name: of the method, for the error.

    Raises:
        AvsbError: it is not a floating-point tensor of the task's shape on the batch's device.
    """
    clips, frames, height, width = batch.shape
    shape = (clips, frames, *((task.channels,) if task.semantic else ()), height, width)
    kind = "class scores" if task.semantic else "probabilities"
    want = f"`predict` of {name} must return {kind}, a float32 tensor {shape} on {batch.images.device}"
    if not isinstance(prediction, Tensor):
        raise AvsbError(f"{want}, and it returned {_describe(prediction)}.")
    if prediction.shape != shape or prediction.device != batch.images.device:
        raise AvsbError(f"{want}, and it returned {_describe(prediction)} on {prediction.device}.")
    if prediction.dtype != torch.float32 and not _is_autocast(prediction):
        raise AvsbError(f"{want}, and it returned {_describe(prediction)}.")
    return prediction


def check_values(values: Tensor, task: Task, name: str, *, where: str, tolerance: float = ROUNDING) -> None:
    """Refuse predictions that are not finite, and probabilities outside [0, 1].

    Args:
        values: predictions of any shape; frames that are padded have been removed.
        task: the task; class scores may have any finite value.
        name: of the method, for the error.
        where: the input in words, for the error: ``clip x``.
        tolerance: see :func:`rounding`.

    Raises:
        AvsbError: a value is out of range.
    """
    if not values.numel():
        return
    low, high = torch.stack(torch.aminmax(values.detach().float())).tolist()
    if not abs(low) + abs(high) < float("inf"):
        raise AvsbError(
            f"The prediction of {name} for {where} is not finite; its weights have diverged, or `predict` is "
            "wrong."
        )
    if not task.semantic and (low < -tolerance or high > 1 + tolerance):
        raise AvsbError(
            f"`predict` of {name} must return probabilities in [0, 1], and those for {where} are in "
            f"[{low:.6g}, {high:.6g}]; if they are logits, apply a sigmoid."
        )


def _is_autocast(value: Tensor) -> bool:
    """Whether a tensor has the reduced precision of the autocast context around the call."""
    kind = value.device.type
    return torch.is_autocast_enabled(kind) and value.dtype == torch.get_autocast_dtype(kind)


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    article = "an" if type(value).__name__[:1] in "aeiou" else "a"
    return f"{article} {type(value).__name__}"
