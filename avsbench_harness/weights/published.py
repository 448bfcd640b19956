"""Published weights: checked against a network, renamed and stored; and recognised by names and shapes.

No method is known here by name. The caller passes the networks that a file may be for; trying them on names
and shapes takes no memory for tensors.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from avsbench_harness.errors import PLUGIN_ERRORS, UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.weights import store
from avsbench_harness.weights.meta import on_meta
from avsbench_harness.weights.state_files import looks_like, read_state
from avsbench_harness.weights.strict import MisfitError, unused_entries
from avsbench_harness.weights.tensors import save_tensors

#: Least share of entries that must fit for a file to be recognised.
ALIKE = 0.5


class PublishedNetwork(Protocol):
    """A module that loads published weights: :class:`avsbench_harness.nn.model.Model` is one."""

    def load_upstream(self, state: Mapping[str, Tensor]) -> None:
        """Load a published state dict, or raise ``UsageError`` if it does not fit."""

    def state_dict(self) -> dict[str, Any]:
        """Parameters and buffers by name."""

    def to(self, device: str, /) -> Any:
        """Move the module."""

    def to_empty(self, *, device: str) -> Any:
        """Move the module without copying its tensors."""


@dataclass(frozen=True)
class Candidate:
    """A network that published weights may be for.

    Attributes:
        method, variant, task, backbone: names.
        build: makes the network with random weights.
    """

    method: str
    variant: str
    task: str
    backbone: str
    build: Callable[[], PublishedNetwork]


@dataclass(frozen=True)
class Imported:
    """Published weights after their import.

    Attributes:
        entry: the stored file.
        unused: names of the file's entries that the network does not use: the audio encoder, which the
            harness provides, and parameters that the published forward pass never reads.
    """

    entry: store.Published
    unused: tuple[str, ...]


@dataclass(frozen=True)
class Likeness:
    """The network that a state dict fits.

    Attributes:
        method, variant, backbone: of the network.
        tasks: those whose networks it fits equally well.
        fit: share of entries that fit; 1 if all do.
    """

    method: str
    variant: str
    backbone: str
    tasks: tuple[str, ...]
    fit: float

    @property
    def network(self) -> tuple[str, str, str]:
        """All but tasks and fit."""
        return self.method, self.variant, self.backbone

    def __str__(self) -> str:
        return f"{self.method} ({self.variant}) for {' or '.join(self.tasks)} with {self.backbone}"


def import_published(
    file: Path, wanted: Candidate, others: Iterable[Candidate], *, ema: bool = False
) -> Imported:
    """Check published weights and store them under the names of this implementation.

    Args:
        file: as the authors published it, see :func:`read_state`.
        wanted: the network that it is for.
        others: networks among which a file that does not fit is recognised.
        ema: import the exponential moving average of the weights, see :func:`read_state`.

    Raises:
        UsageError: the file cannot be read safely, or does not fit; the message names what it looks like.
    """
    state = read_state(file, ema=ema)
    try:  # not every variant can be built for every task and backbone
        model = on_meta(wanted.build)
        model.load_upstream(_without_memory(state))
    except UsageError as error:
        raise UsageError(f"{file}: {error} {_verdict(state, others)}") from None
    # Every entry comes from the file but counters of batches, which old files lack.
    model.to_empty(device="cpu")
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            value.zero_()
    try:
        model.load_upstream(state)
    except UsageError as error:  # faults of the values, which tensors without memory do not have
        raise UsageError(f"{file}: {error}") from None
    with tempfile.TemporaryDirectory() as folder:
        converted = Path(folder) / "weights.safetensors"
        save_tensors(converted, model.state_dict())
        entry = store.add_published(
            converted,
            method=wanted.method,
            variant=wanted.variant,
            task=wanted.task,
            backbone=wanted.backbone,
            file=file.name,
            source_sha256=sha256_file(file),
            ema=ema,
        )
    return Imported(entry, unused_entries(model))


def recognise(state: Mapping[str, Tensor], candidates: Iterable[Candidate]) -> Likeness | None:
    """Return the network that a state dict fits best, or ``None`` if it fits none.

    Args:
        state: names and tensors.
        candidates: networks in the order of methods, variants and backbones; the search ends with the first
            that fits entirely, and the tasks beside it.
    """
    best: Likeness | None = None
    for likeness in _likenesses(_without_memory(state), candidates):
        if best is None or likeness.fit > best.fit:
            best = likeness
        elif likeness.network == best.network and likeness.fit == best.fit:
            best = replace(best, tasks=(*best.tasks, *likeness.tasks))
        elif likeness.network != best.network and best.fit == 1:
            break
    return best if best is not None and best.fit >= ALIKE else None


def _likenesses(state: Mapping[str, Tensor], candidates: Iterable[Candidate]) -> Iterator[Likeness]:
    """The fit of a state dict to each candidate that has published weights."""
    without: set[tuple[str, str]] = set()
    for candidate in candidates:
        if (candidate.method, candidate.backbone) in without:
            continue
        try:
            model = on_meta(candidate.build)
        except PLUGIN_ERRORS:  # not every variant has every task, and a broken plugin is no candidate
            continue
        fit = 1.0
        try:
            model.load_upstream(state)
        except MisfitError as error:
            fit = error.fit
        except UsageError:  # nothing was published with this backbone
            without.add((candidate.method, candidate.backbone))
            continue
        yield Likeness(candidate.method, candidate.variant, candidate.backbone, (candidate.task,), fit)


def _verdict(state: Mapping[str, Tensor], candidates: Iterable[Candidate]) -> str:
    """A sentence that names what a file that does not fit looks like."""
    found = recognise(state, candidates)
    if found is None:
        return f"It fits no published weights of the installed methods; it looks like {looks_like(state)}."
    share = "" if found.fit == 1 else f" ({min(round(100 * found.fit), 99)}% of the entries fit)"
    return f"It looks like {found}{share}."


def _without_memory(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to("meta") for name, value in state.items()}
