"""Checkpoints that a method's authors published: checked, renamed, stored; and what a file looks like.

No method is known here by name: a file is recognised by trying the networks of all installed methods on the
names and shapes of its entries, which takes no memory for tensors.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from avsbench_harness.engine.checkpoint import save_tensors
from avsbench_harness.errors import UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.method import Method, check_task, check_variant, get_method, methods
from avsbench_harness.nn.meta import on_meta
from avsbench_harness.nn.model import Model
from avsbench_harness.tasks import get_task
from avsbench_harness.weights import store
from avsbench_harness.weights.state_files import looks_like, read_state
from avsbench_harness.weights.strict import MisfitError, unused_entries

#: Share of entries that must fit for a file to look like something.
ALIKE = 0.5


@dataclass(frozen=True)
class Imported:
    """A checkpoint that was taken in.

    Attributes:
        entry: where it is stored, and as what.
        unused: names of the file's entries that the network has no use for: the audio encoder, which is the
            harness's, and what the published forward pass never reads.
    """

    entry: store.Published
    unused: tuple[str, ...]


@dataclass(frozen=True)
class Likeness:
    """What a state dict fits.

    Attributes:
        method, backbone: of the network.
        tasks: those whose networks it fits equally well.
        fit: 1 if entirely, else the share of entries that fit.
    """

    method: str
    backbone: str
    tasks: tuple[str, ...]
    fit: float

    def __str__(self) -> str:
        return f"{self.method} for {' or '.join(self.tasks)} with {self.backbone}"


def import_checkpoint(
    method_name: str, file: Path, *, task: str, backbone: str, variant: str | None = None
) -> Imported:
    """Check a published checkpoint and store it under this implementation's names.

    Args:
        method_name: the method's name, alias or folder.
        file: as the authors published it, see :func:`read_state`.
        task: ``s4``, ``ms3`` or ``avss``.
        backbone: ``r50``, ``pvt`` or another of which there are checkpoints.
        variant: by default the method's first.

    Raises:
        UsageError: the file cannot be read safely, or is of something else; the message says of what it
            looks to be.
    """
    method = get_method(method_name)
    chosen, which = check_task(method, task), check_variant(method, variant)
    state = read_state(file)
    try:  # not every variant can be built for every task and backbone
        model = on_meta(lambda: method.build(chosen, backbone, variant=which))
        model.load_upstream(_without_memory(state))
    except UsageError as error:
        raise UsageError(f"{file}: {error} {_verdict(state)}") from None
    # Every entry comes from the file but counters of seen batches, which old files lack.
    model.to_empty(device="cpu")
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            value.zero_()
    try:
        model.load_upstream(state)
    except UsageError as error:  # of what only the values tell
        raise UsageError(f"{file}: {error}") from None
    with tempfile.TemporaryDirectory() as folder:
        converted = Path(folder) / "weights.safetensors"
        save_tensors(converted, model.state_dict())
        entry = store.add_published(
            converted,
            method=method.name,
            variant=which,
            task=chosen.name,
            backbone=backbone,
            file=file.name,
            source_sha256=sha256_file(file),
        )
    return Imported(entry, unused_entries(model))


def recognise(state: Mapping[str, Tensor]) -> Likeness | None:
    """The published network that a state dict fits best, or ``None`` if it is like none."""
    best: Likeness | None = None
    for entry in methods().values():
        for likeness in _likenesses(entry.method, _without_memory(state)) if entry.method else ():
            if best is None or likeness.fit > best.fit:
                best = likeness
            elif likeness.fit == best.fit and (likeness.method, likeness.backbone) == (
                best.method,
                best.backbone,
            ):
                best = Likeness(best.method, best.backbone, (*best.tasks, *likeness.tasks), best.fit)
        if best is not None and best.fit == 1:
            return best
    return best if best is not None and best.fit >= ALIKE else None


def _likenesses(method: Method, state: Mapping[str, Tensor]) -> Iterator[Likeness]:
    """How well a state dict fits a method's networks, one after another."""
    for backbone in method.backbones:
        for task in method.tasks:
            build = partial(method.build, get_task(task), backbone, variant=method.variants[0])
            try:
                model = on_meta(build)
            except Exception:  # not every variant does every task, and a broken plugin is no candidate
                continue
            if type(model).load_upstream is Model.load_upstream:
                return  # nothing was published
            try:
                model.load_upstream(state)
            except MisfitError as error:
                yield Likeness(method.name, backbone, (task,), error.fit)
            except UsageError:
                break  # nothing with this backbone
            else:
                yield Likeness(method.name, backbone, (task,), 1.0)


def _verdict(state: Mapping[str, Tensor]) -> str:
    """A sentence on what a file that does not fit looks like."""
    found = recognise(state)
    if found is None:
        return f"It is like no published checkpoint of the installed methods, but like {looks_like(state)}."
    share = "" if found.fit == 1 else f" ({min(round(100 * found.fit), 99)}% of the entries fit)"
    return f"It looks like {found}{share}."


def _without_memory(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to("meta") for name, value in state.items()}
