"""Names of visual backbones and of their weights. timm is slow to import, and aliases do not need it."""

from __future__ import annotations

import difflib
from typing import Any

from avsbench_harness.errors import unknown

#: Short names in this benchmark, and their timm models with the tag of their weights. timm's default for
#: ResNet-50 is another training (a1_in1k); the methods use torchvision's first weights.
ALIASES = {
    "r50": "resnet50.tv_in1k",
    "pvt": "pvt_v2_b5.in1k",
    "swin_t": "swin_tiny_patch4_window7_224.ms_in1k",
    "lite0": "tf_efficientnet_lite0.in1k",
}

#: First digits of the SHA-256 of the files that have the weights of a tag. ResNet-50: torchvision's
#: resnet50-19c8e357.pth, the same tensors saved again as resnet50-0676ba61.pth, and timm's model.safetensors.
KNOWN_FILES = {"resnet50.tv_in1k": ("19c8e357", "0676ba61", "5d061a3c593d795b")}


def resolve(name: str) -> str:
    """Return the timm name of an alias or timm name, with its weights tag (``resnet50.tv_in1k``).

    A timm name without a tag gets timm's default tag; that of a model without weights has none.

    Raises:
        UsageError: timm has no such model or tag; the nearest name is suggested.
    """
    if name in ALIASES:
        return ALIASES[name]
    import timm

    if not timm.is_model(name):
        raise unknown("backbone", name, near(name))
    architecture, _, tag = name.partition(".")
    try:
        cfg: Any = timm.get_pretrained_cfg(name)
    except RuntimeError:
        tags = [known.split(".", 1)[1] for known in timm.list_pretrained(f"{architecture}.*")]
        raise unknown(f"weights of {architecture}", tag, tags) from None
    return f"{architecture}.{cfg.tag}" if cfg is not None and cfg.tag else architecture


def weights_name(name: str, sha256: str) -> str:
    """Return the timm name of a file's weights: without the tag if the file is known not to have its weights.

    Args:
        name: a timm name with tag.
        sha256: of the file.
    """
    known = KNOWN_FILES.get(name)
    return name if known is None or sha256.startswith(known) else name.partition(".")[0]


def near(name: str) -> list[str]:
    """The aliases, and the timm model with the most similar name, if there is one."""
    import timm

    return [*ALIASES, *difflib.get_close_matches(name, timm.list_models(), n=1)]
