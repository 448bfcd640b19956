"""The default backbone and preset of a run: they depend on the data set and on what is installed."""

from __future__ import annotations

from pathlib import Path

from avsbench_harness.data.avsbench.tree import data_root, generated_name
from avsbench_harness.errors import AvsbError
from avsbench_harness.method import Method
from avsbench_harness.recipe.resolve import presets
from avsbench_harness.weights import store
from avsbench_harness.weights.backbone_names import resolve

#: The preset for AVS-Mini, and its backbone.
MINI, MINI_BACKBONE = "mini", "lite0"


def default_backbone(method: Method, preset: str | None, data: Path | None) -> str:
    """Return ``lite0`` for the preset ``mini``, which is the default on AVS-Mini if possible; else ``r50``.

    Args:
        method: the method.
        preset: the preset that was asked for, if any.
        data: data root or name of a generated data set, if any.
    """
    chosen = preset or default_preset(method, MINI_BACKBONE, data)
    return MINI_BACKBONE if chosen == MINI else "r50"


def default_preset(method: Method, backbone: str, data: Path | None) -> str:
    """Return ``full`` for a data root, and for generated data ``mini`` or ``smoke``.

    ``mini`` is for AVS-Mini if the backbone is ``lite0``, its weights are installed, and the method has the
    preset.

    Args:
        method: the method.
        backbone: alias or timm name.
        data: data root or name of a generated data set, if any.
    """
    if data_root(data) is not None:
        return "full"
    fits = generated_name(data) == MINI and resolve(backbone) == resolve(MINI_BACKBONE)
    return MINI if fits and store.find(MINI_BACKBONE) is not None and _has_mini(method) else "smoke"


def _has_mini(method: Method) -> bool:
    try:
        return MINI in presets(method)
    except AvsbError:  # reported when the recipe is resolved
        return False
