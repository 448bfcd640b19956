"""Class-agnostic masks by a Segment Anything model (Kirillov et al., ICCV 2023) from a local folder.

The model and its automatic mask generation (a grid of 32 x 32 points, masks filtered by predicted quality and
stability, duplicates removed) are those of the library transformers, an optional dependency.
"""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from avsbench_harness.errors import MissingDataError, UsageError, one_line
from avsbench_harness.files import sha256_file

#: Digits of the hash in a model's name.
DIGITS = 12


class Sam:
    """A Segment Anything model that segments frames into masks.

    Attributes:
        name: ``sam-`` and the first digits of the model's hash; the key of its masks in the cache.
    """

    def __init__(self, folder: Path, device: str | None = None) -> None:
        """Load a model; nothing is downloaded.

        Args:
            folder: a model as transformers saves it: ``config.json``, ``preprocessor_config.json`` and
                ``.safetensors``.
            device: ``cpu``, ``cuda`` or ``cuda:N``; defaults to CUDA if available.

        Raises:
            MissingDataError: the folder or the weights in it are missing.
            UsageError: transformers is not installed, or the folder contains no such model.
        """
        self.name = f"sam-{model_hash(folder)[:DIGITS]}"
        try:
            transformers: Any = importlib.import_module("transformers")
        except ImportError:
            raise UsageError(
                'The segmenter sam needs transformers; `pip install "avsbench-harness[sam]"` installs it.'
            ) from None
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        try:
            # Only safetensors: other formats of weights could run code.
            model = transformers.AutoModelForMaskGeneration.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
            processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = one_line(error, 150)
            raise UsageError(
                f"{folder} contains no Segment Anything model of transformers ({reason})."
            ) from error
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._generate = transformers.pipeline(
            "mask-generation", model=model.float().eval(), image_processor=processor, device=chosen
        )

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return masks (K,H,W) of a frame (H,W,3), in any order; one empty mask if the model finds none."""
        with torch.no_grad():
            masks = self._generate(Image.fromarray(frame))["masks"]
        if not len(masks):
            return np.zeros((1, *frame.shape[:2]), np.bool_)
        return np.stack([np.asarray(torch.as_tensor(mask).cpu()).astype(np.bool_) for mask in masks])


def model_hash(folder: Path) -> str:
    """Return the SHA-256 of the files that determine a model's masks: weights and configurations.

    Raises:
        MissingDataError: there are no weights.
    """
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*config.json")])
    if not any(file.suffix == ".safetensors" for file in files):
        raise MissingDataError(f"There is no .safetensors file of a Segment Anything model in {folder}.")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {sha256_file(file)}\n".encode())
    return digest.hexdigest()
