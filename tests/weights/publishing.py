"""A method with published weights of its own, and state dicts of the kinds that authors publish."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

UPSTREAM = """

class PublishedModel(TinyModel):
    def load_upstream(self, state):
        from avsbench_harness.weights.strict import load_renamed

        def rename(name):
            return None if name.startswith("audio.") else name.removeprefix("net.")

        load_renamed(self, state, rename, what=f"tiny for {self.task.name}")
"""


def publishing_method(tiny: str, folder: Path) -> str:
    """A folder with the tiny method, changed to have published weights with the key prefix ``net.``."""
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "model.py").write_text((folder / "model.py").read_text() + UPSTREAM)
    plugin = (folder / "__init__.py").read_text()
    (folder / "__init__.py").write_text(plugin.replace("TinyModel", "PublishedModel"))
    return str(folder)


def golden_keys(data: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published state dict, ``combo/r50_s4`` for instance."""
    keys = json.loads((data / f"{name}.keys.json").read_text())
    return {key: tuple(shape) for key, shape in keys.items()}


def constants(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """A state dict of these shapes in half precision; every entry repeats one number of its own."""
    return {
        name: torch.tensor(zlib.crc32(name.encode()) % 9973 / 9973.0, dtype=torch.float16).expand(
            tuple(shape)
        )
        if not name.endswith("num_batches_tracked")
        else torch.tensor(5)
        for name, shape in shapes.items()
    }
