"""avsbench-harness: train, score and rank audio-visual segmentation methods under common protocols.

The public names below are imported on first use, so that importing the package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avsbench_harness.data.batch import Batch as Batch
    from avsbench_harness.engine.predictor import Predictor as Predictor
    from avsbench_harness.launch.load_model import load as load
    from avsbench_harness.method import Method as Method
    from avsbench_harness.method import build as build
    from avsbench_harness.method import methods as methods
    from avsbench_harness.nn.model import Model as Model

_MODULES = {
    "Batch": "avsbench_harness.data.batch",
    "Method": "avsbench_harness.method",
    "Model": "avsbench_harness.nn.model",
    "Predictor": "avsbench_harness.engine.predictor",
    "build": "avsbench_harness.method",
    "load": "avsbench_harness.launch.load_model",
    "methods": "avsbench_harness.method",
}
__all__ = ["Batch", "Method", "Model", "Predictor", "__version__", "build", "load", "methods"]

try:
    __version__ = version("avsbench-harness")
except PackageNotFoundError:  # the source tree is on the path but not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'avsbench_harness' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
