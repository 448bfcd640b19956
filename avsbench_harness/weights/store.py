"""The store of weights files: in the cache folder, under their SHA-256, checked before they are taken in.

Files lie in ``<cache>/weights/<sha256>.<pth or safetensors>``; ``index.json`` beside them says which one a
name stands for: a model's, or the id of a published checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock
from torch import Tensor

from avsbench_harness.errors import UsageError, unknown
from avsbench_harness.files import atomic_write, cache_dir, read_json, sha256_file, write_json
from avsbench_harness.nn.audio_encoder import AUDIO_ENCODERS, fit_audio_state
from avsbench_harness.weights import timm_names
from avsbench_harness.weights.state_files import check_published_hash, read_state


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


@dataclass(frozen=True)
class Published(Entry):
    """A checkpoint that a method's authors published, stored under this implementation's names.

    ``name`` is its id, ``file`` what the authors' file was called, and ``sha256`` and ``size`` are those of
    the stored safetensors file.

    Attributes:
        method, variant, task, backbone: what it was checked to fit.
        source_sha256: of the authors' file.
    """

    method: str
    variant: str
    task: str
    backbone: str
    source_sha256: str

    @property
    def path(self) -> Path:
        """Where the file lies in the store."""
        return _folder() / f"{self.sha256}.safetensors"


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
    entry = Entry(name=model, sha256=digest, file=file.name, size=file.stat().st_size, added=_today())
    _store(entry, file)
    return entry


def add_published(
    converted: Path, *, method: str, variant: str, task: str, backbone: str, file: str, source_sha256: str
) -> Published:
    """Take a published checkpoint into the store; what was imported once is found again, not doubled.

    Args:
        converted: safetensors file with the names of the method's network.
        method, variant, task, backbone: what it fits.
        file: what the authors' file is called.
        source_sha256: its SHA-256.
    """
    entry = Published(
        name=f"{method}-{variant}-{task}-{backbone}-{source_sha256[:8]}",
        sha256=sha256_file(converted),
        file=file,
        size=converted.stat().st_size,
        added=_today(),
        method=method,
        variant=variant,
        task=task,
        backbone=backbone,
        source_sha256=source_sha256,
    )
    for known in published():
        if replace(known, added=entry.added, file=entry.file) == entry and _is_whole(known):
            return known
    _store(entry, converted)
    return entry


def _store(entry: Entry, file: Path) -> None:
    """Copy a file into the store and enter it into the index, one process after the other."""
    with atomic_write(entry.path) as copy, file.open("rb") as source:
        shutil.copyfileobj(source, copy)
    with FileLock(_folder() / ".lock"):
        index = {known.name: known for known in entries()} | {entry.name: entry}
        write_json(_index(), {key: asdict(index[key]) for key in sorted(index)})


def published() -> list[Published]:
    """All published checkpoints in the store, by id."""
    return [entry for entry in entries() if isinstance(entry, Published)]


def find(name: str) -> Path | None:
    """The stored file of a model, or ``None``; an entry whose file was deleted counts as none."""
    model = model_name(name)
    for entry in entries():
        if entry.name == model and _is_whole(entry):
            return entry.path
    return None


def _is_whole(entry: Entry) -> bool:
    """Whether an entry's file is there, and was not cut short."""
    return entry.path.is_file() and entry.path.stat().st_size == entry.size


def entries() -> list[Entry]:
    """All stored files, by name.

    Raises:
        UsageError: the index is damaged.
    """
    index = _index()
    if not index.is_file():
        return []
    try:
        values = read_json(index).values()
        return [Published(**value) if "method" in value else Entry(**value) for value in values]
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


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _folder() -> Path:
    return cache_dir() / "weights"


def _index() -> Path:
    return _folder() / "index.json"
