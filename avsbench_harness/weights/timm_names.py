"""Feature extractors of timm, and weights under their names: timm's own and those of the original authors."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

import timm
import torch
from torch import Tensor, nn

from avsbench_harness.errors import UsageError
from avsbench_harness.weights.backbone_names import ALIASES
from avsbench_harness.weights.meta import on_meta
from avsbench_harness.weights.state_files import looks_like
from avsbench_harness.weights.strict import check_numbers

#: Strides of the feature maps that methods use, in pixels.
STRIDES = (4, 8, 16, 32)


def create_body(name: str, **options: Any) -> nn.Module:
    """Build timm's feature extractor with maps at strides 4, 8, 16 and 32, with random weights.

    Args:
        name: a timm name, see :func:`.backbone_names.resolve`.
        options: passed to ``timm.create_model``.

    Raises:
        UsageError: the model does not have these four maps.
    """
    body: nn.Module = timm.create_model(name, features_only=True, out_indices=_map_indices(name), **options)
    return body


def _map_indices(name: str) -> tuple[int, ...]:
    """Indices of a model's feature maps that have the four strides."""
    try:
        info: Any = skeleton(name, features_only=True).feature_info
    except (RuntimeError, AttributeError, NotImplementedError, AssertionError) as error:
        raise UsageError(f"timm's '{name}' has no feature maps ({error}).") from error
    reductions = info.reduction()
    if any(stride not in reductions for stride in STRIDES):
        found = ", ".join(map(str, reductions))
        raise UsageError(
            f"Backbone '{name}' has maps at strides {found}; 4, 8, 16 and 32 are needed, as in "
            f"{', '.join(ALIASES)}."
        )
    return tuple(reductions.index(stride) for stride in STRIDES)


@cache
def skeleton(name: str, **options: Any) -> nn.Module:
    """A timm model on the meta device: names and shapes only."""
    model: nn.Module = on_meta(lambda: timm.create_model(name, **options))
    return model


def fit_state(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a backbone's weights under the names of :func:`create_body`'s module.

    Accepts the names of timm, of torchvision (ResNet), of the original authors (PVT, Swin and others that
    timm converts) and of ``efficientnet_pytorch``, with or without the classifier. All
    entries must be there, known and of the right shape.

    Args:
        name: a timm name.
        state: as read from a file.

    Raises:
        UsageError: the state dict is of another model, which the message names, or holds values that are not
            finite or not floating-point.
    """
    whole = skeleton(name)
    wanted = skeleton(name, features_only=True, out_indices=_map_indices(name)).state_dict()
    # timm defines the conversion from the original authors' names in the module of each architecture.
    convert = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
    known = set(whole.state_dict())
    if "_conv_stem.weight" in state:
        state = _in_order(state, whole)
    elif convert is not None and not wanted.keys() <= {_body_name(key, wanted) for key in state}:
        state = _converted(convert, state, whole)
    fitted = {_body_name(key, wanted): tensor for key, tensor in state.items()}
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    for key in counters - fitted.keys():  # missing in files older than PyTorch 0.4.1
        fitted[key] = torch.zeros((), dtype=torch.int64)
    missing = [key for key in wanted if key not in fitted]
    extra = [key for key in state if _body_name(key, wanted) not in wanted and key not in known]
    if missing or extra:
        fault = f"lacks '{missing[0]}'" if missing else f"has '{extra[0]}', which the model lacks"
        raise _misfit(name, state, f"it {fault}")
    for key, tensor in wanted.items():
        if fitted[key].shape != tensor.shape:
            shapes = f"{tuple(fitted[key].shape)} instead of {tuple(tensor.shape)}"
            raise _misfit(name, state, f"its '{key}' is {shapes}")
    check_numbers(fitted, wanted, f"'{name}'")
    return {key: fitted[key] for key in wanted}


def _body_name(key: str, wanted: Mapping[str, Tensor]) -> str:
    """Return the feature extractor's name of a classifier's entry.

    timm flattens one level of containers (``stages.0.x`` becomes ``stages_0.x``) or wraps the model.
    """
    for candidate in (key, key.replace(".", "_", 1), f"model.{key}"):
        if candidate in wanted:
            return candidate
    return key


def _converted(convert: Any, state: Mapping[str, Tensor], whole: nn.Module) -> Mapping[str, Tensor]:
    try:
        converted: Mapping[str, Tensor] = convert(dict(state), whole)
    except (KeyError, AttributeError, RuntimeError, ValueError, IndexError, AssertionError):
        return state  # not in the original authors' format either: reported as a misfit
    return converted


def _in_order(state: Mapping[str, Tensor], whole: nn.Module) -> Mapping[str, Tensor]:
    """Rename the entries of ``efficientnet_pytorch``'s models, which timm's have in the same order."""
    names = whole.state_dict()
    if [tensor.shape for tensor in state.values()] != [tensor.shape for tensor in names.values()]:
        return state  # of another model: reported as a misfit
    return dict(zip(names, state.values(), strict=True))


def _misfit(name: str, state: Mapping[str, Tensor], fault: str) -> UsageError:
    model = name.partition(".")[0]
    return UsageError(f"These weights do not fit '{model}': {fault}. They look like {looks_like(state)}.")
