"""The ImageNet weights of visual backbones on this machine; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avsbench_harness.errors import MissingDataError
from avsbench_harness.weights import backbone_names, store
from avsbench_harness.weights.packaged import PACKAGED
from avsbench_harness.weights.spec import BackboneWeightsSpec


def pretrained_weights(name: str) -> tuple[Path, BackboneWeightsSpec]:
    """Find the ImageNet weights of a backbone, see :func:`find_pretrained`, and describe them for a spec."""
    path = find_pretrained(name)
    digest = store.file_hash(path)
    full = backbone_names.weights_name(backbone_names.resolve(name), digest)
    return path, BackboneWeightsSpec(name=full, sha256=digest)


def find_pretrained(name: str) -> Path:
    """Find the ImageNet weights of a backbone: in the store, a package, or timm's download cache.

    Raises:
        MissingDataError: none has them; the message names the file to download and the command to add it.
    """
    stored = store.find(name)
    if stored is not None:
        return stored
    from huggingface_hub import try_to_load_from_cache
    from timm import get_pretrained_cfg

    full = backbone_names.resolve(name)
    cfg: Any = get_pretrained_cfg(full)
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        raise MissingDataError(
            f"timm has no weights for '{full}'; add your own: avsb weights add {name} FILE"
        )
    sources = []
    if cfg.hf_hub_id:
        for file in ("model.safetensors", "pytorch_model.bin"):
            cached = try_to_load_from_cache(cfg.hf_hub_id, file)
            if isinstance(cached, str):
                return Path(cached)
        sources.append(f"https://huggingface.co/{cfg.hf_hub_id}/resolve/main/model.safetensors")
    if isinstance(cfg.url, str) and cfg.url:
        sources.append(cfg.url)
    known = [f"{digits[:8]}..." for digits in backbone_names.KNOWN_FILES.get(full, ())]
    hashes = f", SHA-256 {' or '.join(known)}" if known else ""
    if full in PACKAGED:
        raise MissingDataError(
            f"The ImageNet weights of '{name}' are not on this machine; "
            f"`{PACKAGED[full].install}` installs them."
        )
    raise MissingDataError(
        f"The ImageNet weights of '{name}' (timm {full}{hashes}) are "
        f"not on this machine, and no others are used instead. Fetch {' or '.join(sources)} and run: "
        f"avsb weights add {name} {sources[0].rsplit('/', 1)[1]}"
    )
