"""The store of weights files: checked before they are added, and kept under their SHA-256.

Files are ``<cache>/weights/<sha256>.<pth or safetensors>``; ``index.json`` beside them maps names to files.
A name is that of a model (an audio encoder or backbone) or the id of published weights. A file is used only
if it has its hash, which is computed when size, times or inode differ from those of the last verification.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from avsbench_harness.errors import MissingDataError, UsageError, unknown
from avsbench_harness.files import atomic_write, cache_dir, read_json, sha256_file, write_json
from avsbench_harness.weights import backbone_names
from avsbench_harness.weights.packaged import find_packaged

if TYPE_CHECKING:
    from torch import Tensor

#: Names of the audio encoders.
AUDIO_ENCODERS = ("vggish", "compact", "compact-esc10")


@dataclass(frozen=True)
class Entry:
    """One stored file.

    Attributes:
        name: the model: an audio encoder or a timm name.
        sha256: of the file, 64 hexadecimal digits.
        file: name of the file when it was added.
        size: in bytes.
        added: date, ISO 8601, UTC.
        ema: whether the file has the exponential moving average of the weights that were added.
    """

    name: str
    sha256: str
    file: str
    size: int
    added: str
    ema: bool = field(default=False, kw_only=True)

    @property
    def source(self) -> str:
        """The command that stores the file again."""
        known = backbone_names.weights_name(self.name, self.sha256) == self.name
        custom = "" if known else " --custom"
        return f"avsb weights add {self.name} {shlex.quote(self.file)}{self._option}{custom}"

    @property
    def _option(self) -> str:
        return " --ema" if self.ema else ""

    @property
    def path(self) -> Path:
        """The stored file."""
        suffix = ".safetensors" if self.ema or self.file.endswith(".safetensors") else ".pth"
        return _folder() / f"{self.sha256}{suffix}"


@dataclass(frozen=True)
class Published(Entry):
    """Published weights, stored under the names of this implementation.

    ``name`` is their id, ``file`` the name of the authors' file, and ``sha256`` and ``size`` are those of
    the stored safetensors file.

    Attributes:
        method, variant, task, backbone: of the network that they fit.
        source_sha256: of the authors' file.
    """

    method: str
    variant: str
    task: str
    backbone: str
    source_sha256: str

    @property
    def source(self) -> str:
        """The command that stores the file again."""
        return (
            f"avsb weights import {self.method} {shlex.quote(self.file)} --variant {self.variant} "
            f"--task {self.task} --backbone {self.backbone}{self._option}"
        )

    @property
    def path(self) -> Path:
        """The stored file."""
        return _folder() / f"{self.sha256}.safetensors"


def add(
    name: str,
    file: Path,
    check: Callable[[str, Mapping[str, Tensor]], object],
    *,
    ema: bool = False,
    custom: bool = False,
) -> Entry:
    """Add a weights file to the store, in place of an earlier one of that name.

    Args:
        name: ``vggish``, ``compact``, a backbone's alias (``r50``, ``pvt``, ``swin_t``) or timm name.
        file: ``.pth`` (state dict) or ``.safetensors``.
        check: called with the model's name and the state dict; raises ``UsageError`` if they do not fit.
        ema: store the exponential moving average of the weights alone, see :func:`read_state`.
        custom: accept weights other than those of the name's tag, see :data:`.backbone_names.KNOWN_FILES`.

    Raises:
        UsageError: the name is unknown; the file is missing, unreadable, of another model, not one of the
            known files of its tag, or its SHA-256 does not begin with the digits in its name
            (``vggish-10086976.pth``).
    """
    from avsbench_harness.weights.state_files import check_published_hash, read_state
    from avsbench_harness.weights.tensors import save_tensors

    model = model_name(name)
    if not file.is_file():
        raise UsageError(f"There is no weights file {file}.")
    digest = sha256_file(file)
    check_published_hash(file, digest)
    if not custom and backbone_names.weights_name(model, digest) != model:
        raise _wrong_tag(name, model, file, digest)
    state = read_state(file, ema=ema)
    try:
        check(model, state)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None
    with tempfile.TemporaryDirectory() as folder:
        stored = file
        if ema:
            stored = Path(folder) / "ema.safetensors"
            save_tensors(stored, state)
            digest = sha256_file(stored)
        entry = Entry(model, digest, file.name, stored.stat().st_size, _today(), ema=ema)
        _store(entry, stored)
    return entry


def _wrong_tag(name: str, model: str, file: Path, digest: str) -> UsageError:
    known = " or ".join(digits[:8] for digits in backbone_names.KNOWN_FILES[model])
    return UsageError(
        f"{file} does not have the weights of '{name}', {model}: its SHA-256 begins with {digest[:8]}, not "
        f"with {known}. Add weights of another tag under their timm name, for example "
        f"{model.partition('.')[0]}.a1_in1k; --custom accepts weights of your own."
    )


def add_published(
    converted: Path,
    *,
    method: str,
    variant: str,
    task: str,
    backbone: str,
    file: str,
    source_sha256: str,
    ema: bool = False,
) -> Published:
    """Add published weights to the store; an earlier import of the same file is reused.

    Args:
        converted: safetensors file with the names of the method's network.
        method, variant, task, backbone: of the network that they fit.
        file: name of the authors' file.
        source_sha256: its SHA-256.
        ema: whether they are the file's exponential moving average.
    """
    entry = Published(
        name=f"{method}-{variant}-{task}-{backbone}-{source_sha256[:8]}{'-ema' if ema else ''}",
        sha256=sha256_file(converted),
        file=file,
        size=converted.stat().st_size,
        added=_today(),
        method=method,
        variant=variant,
        task=task,
        backbone=backbone,
        source_sha256=source_sha256,
        ema=ema,
    )
    for known in published():
        if replace(known, added=entry.added, file=entry.file) == entry and _is_whole(known):
            return known
    _store(entry, converted)
    return entry


def _store(entry: Entry, file: Path) -> None:
    """Copy a file into the store and add it to the index, one process at a time."""
    with atomic_write(entry.path) as copy, file.open("rb") as source:
        shutil.copyfileobj(source, copy)
    with FileLock(_folder() / ".lock"):
        index = {known.name: known for known in entries()} | {entry.name: entry}
        write_json(_index(), {key: _values(index[key]) for key in sorted(index)})


def _values(entry: Entry) -> dict[str, Any]:
    """The values of an entry; the default of ``ema`` is left out, which earlier versions do not know."""
    return {name: value for name, value in asdict(entry).items() if name != "ema" or value}


def published() -> list[Published]:
    """All published weights in the store, by id."""
    return [entry for entry in entries() if isinstance(entry, Published)]


def find(name: str) -> Path | None:
    """The stored file of a model, or that of an installed package; ``None`` if there is none.

    Raises:
        MissingDataError: the file is damaged.
    """
    model = model_name(name)
    for entry in entries():
        if entry.name == model and entry.path.is_file():
            return verified(entry)
    return find_packaged(model)


def file_hash(path: Path) -> str:
    """The SHA-256 of a weights file; that of a stored file, which :func:`find` has verified, is its name."""
    return path.stem if path.parent == _folder() else sha256_file(path)


def verified(entry: Entry) -> Path:
    """The stored file of an entry, if it is whole.

    Raises:
        MissingDataError: it is missing or damaged; the message has the command that stores it again.
    """
    if not _is_whole(entry):
        fault = "damaged: its SHA-256 is another" if entry.path.is_file() else "missing"
        raise MissingDataError(
            f"The stored weights of {entry.name}, {entry.path}, are {fault}; "
            f"`{entry.source}` stores them again."
        )
    return entry.path


def _is_whole(entry: Entry) -> bool:
    """Whether an entry's file exists and has its size and hash."""
    path, stamps = entry.path, _folder() / "verified.json"
    if not path.is_file() or path.stat().st_size != entry.size:
        return False
    facts = path.stat()
    stamp = [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]
    if _stamps(stamps).get(path.name) == stamp:
        return True
    if sha256_file(path) != entry.sha256:
        return False
    with (
        suppress(OSError),
        FileLock(_folder() / ".lock"),
    ):  # a read-only cache is hashed every time
        write_json(stamps, {**_stamps(stamps), path.name: stamp})
    return True


def _stamps(path: Path) -> dict[str, Any]:
    """Facts of the files that were verified, by name; empty if unreadable."""
    try:
        found = read_json(path)
    except (OSError, UsageError):
        return {}
    return found if isinstance(found, dict) else {}


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
        UsageError: the name is unknown.
    """
    if name in AUDIO_ENCODERS:
        return name
    try:
        return backbone_names.resolve(name)
    except UsageError:
        if "." in name:  # a known model with an unknown tag: that message says more
            raise
        raise unknown("model", name, [*AUDIO_ENCODERS, *backbone_names.near(name)]) from None


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _folder() -> Path:
    return cache_dir() / "weights"


def _index() -> Path:
    return _folder() / "index.json"
