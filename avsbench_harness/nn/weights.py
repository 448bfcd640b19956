"""The store of weights files: in the cache folder, under their SHA-256, checked before they are taken in.

Files lie in ``<cache>/weights/<sha256>.<pth or safetensors>``; ``index.json`` beside them says which one a
model's name stands for.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from torch import Tensor

from avsbench_harness.errors import UsageError, unknown
from avsbench_harness.files import atomic_write, cache_dir, read_json, sha256_file, write_json
from avsbench_harness.nn import timm_names
from avsbench_harness.nn.audio_encoder import AUDIO_ENCODERS, fit_audio_state
from avsbench_harness.nn.state_files import check_published_hash, read_state


@dataclass(frozen=True)
class Entry:
    """One stored file.

    Attributes:
        name: the model: ``vggish``, ``compact`` or a timm name.
        sha256: of the file, 64 hexadecimal digits.
        file: what the file was called when it was added.
        size: in bytes.
        added: date, ISO 8601, UTC.
    """

    name: str
    sha256: str
    file: str
    size: int
    added: str

    @property
    def path(self) -> Path:
        """Where the file lies in the store."""
        suffix = ".safetensors" if self.file.endswith(".safetensors") else ".pth"
        return _folder() / f"{self.sha256}{suffix}"


def add(name: str, file: Path) -> Entry:
    """Take a weights file into the store, in place of an earlier one of that name.

    Args:
        name: ``vggish``, ``compact``, a backbone's alias (``r50``, ``pvt``, ``swin_t``) or timm name.
        file: ``.pth`` (state dict) or ``.safetensors``.

    Raises:
        UsageError: the name is unknown; the file is missing, unreadable, of another model, or its SHA-256
            does not begin with the digits in its name (``vggish-10086976.pth``).
    """
    model = model_name(name)
    if not file.is_file():
        raise UsageError(f"There is no weights file {file}.")
    digest = sha256_file(file)
    check_published_hash(file, digest)
    state = read_state(file)
    try:
        fit(model, state)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None
    added = datetime.now(UTC).date().isoformat()
    entry = Entry(name=model, sha256=digest, file=file.name, size=file.stat().st_size, added=added)
    with atomic_write(entry.path) as copy, file.open("rb") as source:
        shutil.copyfileobj(source, copy)
    index = {known.name: known for known in entries()} | {model: entry}
    write_json(_index(), {key: asdict(index[key]) for key in sorted(index)})
    return entry


def find(name: str) -> Path | None:
    """The stored file of a model, or ``None``; an entry whose file was deleted counts as none."""
    model = model_name(name)
    for entry in entries():
        if entry.name == model and entry.path.is_file() and entry.path.stat().st_size == entry.size:
            return entry.path
    return None


def entries() -> list[Entry]:
    """All stored files, by name.

    Raises:
        UsageError: the index is damaged.
    """
    index = _index()
    if not index.is_file():
        return []
    try:
        return [Entry(**value) for value in read_json(index).values()]
    except (AttributeError, TypeError):
        raise UsageError(f"{index} is damaged; delete it and add the weights again.") from None


def model_name(name: str) -> str:
    """The name under which a model's weights are stored: an audio encoder's, or the timm name.

    Raises:
        UsageError: nothing is called that.
    """
    if name in AUDIO_ENCODERS:
        return name
    try:
        return timm_names.resolve(name)
    except UsageError:
        if "." in name:  # a known model with an unknown tag: that message says more
            raise
        raise unknown("model", name, [*AUDIO_ENCODERS, *timm_names.near(name)]) from None


def fit(model: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the names of the model's module, see ``fit_audio_state`` and ``fit_state``."""
    if model in AUDIO_ENCODERS:
        return fit_audio_state(model, state)
    return timm_names.fit_state(model, state)


def _folder() -> Path:
    return cache_dir() / "weights"


def _index() -> Path:
    return _folder() / "index.json"
