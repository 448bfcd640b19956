"""A small QDFormer, and random inputs."""

from __future__ import annotations

from typing import Any

import torch
from avsbench_methods.qdformer import QDFormer
from avsbench_methods.qdformer.model import QDFormerModel
from torch import Tensor

from avsbench_harness.data.batch import Batch
from avsbench_harness.tasks import S4, Task

SMALL: dict[str, Any] = {
    "dim": 32, "heads": 4, "ffn_dim": 32, "encoder_layers": 1, "semantic_layers": 1, "decoder_layers": 1,
    "codebook_size": 16, "tokens": 3, "unquantized_steps": 0,
}  # fmt: skip


#: The overrides of each row of Table 2; the last is the method.
TABLE_2: dict[str, dict[str, Any]] = {
    "baseline": {"decomposition": "none"},
    "non-Q SD": {"decomposition": "continuous"},
    "Q SD": {"recombination": False, "calibration": "local_updates"},
    "Q SD + AVSR": {"calibration": "local_updates"},
    "Q SD + AVSR + LC": {},
}


def small(**changes: Any) -> dict[str, Any]:
    """Return the small options with changes, without options that have no effect then."""
    options = {**SMALL, **changes}
    if options.get("decomposition", "quantized") != "quantized":
        del options["codebook_size"], options["unquantized_steps"]
    if options.get("decomposition") == "none":
        options.pop("semantic_layers")
    return options


def build(task: Task = S4, seed: int = 0, **changes: Any) -> QDFormerModel:
    torch.manual_seed(seed)
    model = QDFormer().build(task, "resnet10t", variant="paper", **small(**changes))
    assert isinstance(model, QDFormerModel)
    return model.eval()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clips(task: Task = S4, clips: int = 2, frames: int = 3, side: int = 64, **fields: Any) -> Batch:
    masks = torch.zeros(clips, frames, side, side, dtype=torch.int64)
    masks[:, :, 8:30, 10:40] = task.channels - 1 or 1
    audio = draw(clips, frames, 128, seed=1).abs()
    return Batch(draw(clips, frames, 3, side, side), audio, **{"masks": masks, **fields})
