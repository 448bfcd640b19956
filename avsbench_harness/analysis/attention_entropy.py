"""Entropy of attention weights: 1 if a query attends to all keys equally, 0 if it attends to one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from avsbench_harness.nn.attention import Attention
from avsbench_harness.nn.deformable import MultiScaleDeformableAttention
from avsbench_harness.nn.model import evaluation_mode


@dataclass(frozen=True)
class LayerEntropy:
    """The attention of one layer in one forward pass.

    Attributes:
        keys: number of keys that a query may attend to (mean over queries); sampling points of deformable
            attention.
        entropy: entropy of a query's weights divided by the logarithm of the number of its keys, mean over
            queries and heads; ``None`` if there is a single key.
        lowest_head: mean of the head with the lowest entropy.
    """

    keys: float
    entropy: float | None
    lowest_head: float | None


def attention_weights(
    module: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """The weights (N,heads,Q,S) of an attention layer for the arguments of its forward pass.

    Returns:
        The weights, and the keys that each query may attend to as bool, broadcastable to them.
    """
    call = inspect.signature(module.forward).bind(*arguments, **keywords).arguments
    query = call["query"]
    if isinstance(module, MultiScaleDeformableAttention):
        return (weights := module.weights(query).transpose(1, 2)), weights.new_ones(1, dtype=torch.bool)
    if isinstance(module, Attention):
        mask = call.get("mask")
        key = query if call.get("key") is None else call["key"]
        return module.head_weights(query, key, mask), _allowed(mask, query)
    # The module's forward pass is called directly: without hooks.
    with evaluation_mode(module):
        call |= {"need_weights": True, "average_attn_weights": False}
        weights = type(module).forward(module, **call)[1]
    padding, mask = call.get("key_padding_mask"), call.get("attn_mask")
    allowed = torch.ones_like(weights, dtype=torch.bool)
    if padding is not None:
        allowed = allowed & _allowed(_inverted(padding), query).unsqueeze(-2).unsqueeze(-2)
    if mask is not None:
        heads = mask.unflatten(0, weights.shape[:2]) if mask.dim() == 3 else mask
        allowed = allowed & _allowed(_inverted(heads), query)
    return weights, allowed


def layer_entropy(weights: Tensor, allowed: Tensor) -> LayerEntropy:
    """The entropy of attention weights (N,heads,Q,S), whose rows sum to 1.

    Args:
        weights: the weights.
        allowed: keys that a query may attend to, bool, broadcastable to the weights.
    """
    weights = weights.double()
    keys = allowed.expand_as(weights).sum(dim=-1)
    entropies = -torch.special.xlogy(weights, weights).sum(dim=-1)
    several = keys > 1
    mean_keys = float(keys.double().mean())
    if not several.any():
        return LayerEntropy(mean_keys, None, None)
    shares = torch.where(several, entropies / keys.clamp(min=2).log(), torch.nan)
    return LayerEntropy(mean_keys, float(shares.nanmean()), float(shares.nanmean(dim=(0, 2)).min()))


class AttentionMonitor:
    """Observes the attention layers of a network: the shared modules, and PyTorch's own.

    Attributes:
        layers: layer -> step -> entropy, of layers that were called; the last call of a step counts.
    """

    KINDS = (Attention, MultiScaleDeformableAttention, nn.MultiheadAttention)

    def __init__(self, network: nn.Module) -> None:
        self._modules = {
            name: module for name, module in network.named_modules() if isinstance(module, self.KINDS)
        }
        self.layers: dict[str, dict[int, LayerEntropy]] = {}

    @contextmanager
    def observe(self, number: int) -> Iterator[None]:
        """Measure the layers in the forward passes with gradients inside the block.

        Args:
            number: of the step, counted from 1.
        """
        with ExitStack() as stack:
            for name, module in self._modules.items():
                measure = partial(self._measure, name, number)
                handle = module.register_forward_pre_hook(measure, with_kwargs=True)
                stack.callback(handle.remove)
                if isinstance(module, Attention):
                    stack.enter_context(_with_weights_observed(module, measure))
            yield

    def _measure(
        self, name: str, number: int, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> None:
        if not torch.is_grad_enabled():
            return
        with torch.no_grad():
            found = layer_entropy(*attention_weights(module, arguments, keywords))
        self.layers.setdefault(name, {})[number] = found


@contextmanager
def _with_weights_observed(
    module: Attention, measure: Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]
) -> Iterator[None]:
    """Call ``measure`` before the layer's ``with_weights``, which forward hooks do not see."""
    original = module.with_weights

    def with_weights(*arguments: Any, **keywords: Any) -> tuple[Tensor, Tensor]:
        measure(module, arguments, keywords)
        return original(*arguments, **keywords)

    # In the instance's dictionary, so that removing it brings the method of the class back.
    module.__dict__["with_weights"] = with_weights
    try:
        yield
    finally:
        del module.__dict__["with_weights"]


def _inverted(mask: Tensor) -> Tensor:
    """PyTorch's boolean masks are true for keys that are not attended to."""
    return ~mask if mask.dtype == torch.bool else mask


def _allowed(mask: Tensor | None, query: Tensor) -> Tensor:
    """The keys that a mask lets through: true ones, or those with a finite bias."""
    if mask is None:
        return torch.ones(1, dtype=torch.bool, device=query.device)
    return mask if mask.dtype == torch.bool else mask > -torch.inf
