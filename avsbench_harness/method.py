"""The interface of method plugins, and their discovery.

A plugin is a small class in the entry-point group ``avsbench_harness.methods``; the methods that ship
with the harness are found the same way as third-party ones. Importing a plugin must not import torch, so that
listing methods is fast: a plugin imports its network inside :meth:`Method.network`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from avsbench_harness.errors import PLUGIN_ERRORS, AvsbError, UsageError, describe, plugin_errors, unknown
from avsbench_harness.recipe.options import BuildOptions
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.schema import Schema
from avsbench_harness.tasks import TASKS, Split, Task, get_task

if TYPE_CHECKING:
    from avsbench_harness.nn.model import Model

GROUP = "avsbench_harness.methods"

#: Names of methods become parts of file names.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,59}")


class Validation(Schema):
    """The scores of one validation, and the optimiser step after which it was made."""

    step: int
    metrics: dict[str, float | None]


class TrainingSummary(Schema):
    """The outcome of a training: the selected weights, and how they were trained.

    Attributes:
        weights_file: name of the file in the run's folder.
        steps: total number of optimiser steps.
        selected_step: the step after which the selected weights were saved.
        validations: all validations, in order.
        seconds: time spent in training steps, over all attempts.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        processes: number of processes of the last attempt.
        threads: number of torch's threads on the CPU in the last attempt; ``None`` on a GPU.
        clips_per_second: average over all training steps.
        memory_gib: peak memory, GiB.
        parameters: number of the network's parameters.
        gmacs: 10^9 multiply-accumulates of one clip's forward pass.
    """

    weights_file: str
    steps: int
    selected_step: int
    validations: list[Validation]
    seconds: float
    device: str
    processes: int = 1
    threads: int | None = None
    clips_per_second: float | None = None
    memory_gib: float | None = None
    parameters: int | None = None
    gmacs: float | None = None


class Loops(NamedTuple):
    """The training and prediction loops of a run; by default the engine's."""

    train: Callable[[Any], TrainingSummary]
    predict: Callable[[Any, Split], Path]


class MethodRun(Protocol):
    """The interface of a run for its method; :class:`avsbench_harness.engine.run.Run` implements it."""

    @property
    def loops(self) -> Loops:
        """The loops that :meth:`Method.train` and :meth:`Method.predict` call by default."""

    @property
    def id(self) -> str:
        """The run's id."""

    @property
    def task(self) -> Task:
        """The task."""

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""

    @property
    def folder(self) -> Path:
        """The run's own folder, for the log, checkpoints and weights."""

    @property
    def weights_file(self) -> Path:
        """The file to which training writes the selected weights."""

    @property
    def side(self) -> int:
        """Height and width of the masks in the submissions that prediction writes."""

    def submission_file(self, split: Split) -> Path:
        """The file to which prediction writes the submission of a split."""

    def build_model(self, *, pretrained: bool) -> Model:
        """Build the method's network with the recipe's options."""


class Method:
    """One published method: its facts, its network, and how it trains and predicts.

    A subclass sets the class attributes and implements :meth:`network`. The folder of its module holds
    ``recipes.yaml`` (training recipes) and ``README.md`` (the model card) beside the code.
    """

    #: Name on the command line and in files.
    name: ClassVar[str]
    #: Other names that the command line accepts.
    aliases: ClassVar[tuple[str, ...]] = ()
    #: Authors, venue and year.
    paper: ClassVar[str]
    #: Address of the code, or of the paper.
    url: ClassVar[str] = ""
    #: ``released`` (the published code), ``paper`` (the paper), or others; see :meth:`default_variant`.
    variants: ClassVar[tuple[str, ...]]
    #: Names of the supported tasks.
    tasks: ClassVar[tuple[str, ...]]
    #: Backbones with a recipe: ``r50``, ``pvt``, ``swin_t`` or timm names.
    backbones: ClassVar[tuple[str, ...]]
    #: The build options that :meth:`build` parses.
    options: ClassVar[type[BuildOptions]]
    #: Whether its losses leave out pixels of class 255, as `augment.outside: ignore` marks them.
    ignored_pixels: ClassVar[bool] = False
    #: Whether it accepts the audio of separated sources, as `audio.separator` makes them.
    separated_audio: ClassVar[bool] = False

    def network(self) -> Callable[[Task, str, Any], Model]:
        """Import and return the network's class, called with task, backbone and parsed ``options``.

        The import belongs here, not at the top of the module: listing methods must not import torch.
        """
        raise NotImplementedError(f"{type(self).__name__} implements neither network nor build.")

    def build(self, task: Task, backbone: str, *, variant: str | None = None, **options: Any) -> Model:
        """Return the network with random weights; nothing is downloaded.

        Args:
            task: the task.
            backbone: ``r50``, ``pvt``, ``swin_t`` or a timm name.
            variant: one of ``variants``; by default :meth:`default_variant`.
            options: build options, as the model card lists them. Two come from the recipe's ``backbone`` and
                are passed only if set there: ``pretrained`` (the file with the backbone's weights) and
                ``drop_path_rate`` (its stochastic depth).

        Raises:
            UsageError: the method has no such variant or task, or an option is unknown, out of range,
                contradicts another, or has no effect.
        """
        check_task(self, task.name)
        chosen = check_variant(self, variant, task.name)
        return self.network()(task, backbone, self.options.of(options, task, chosen))

    def default_variant(self, task: str) -> str:
        """Return the variant that is built for a task unless another is asked for, here the first."""
        return self.variants[0]

    def uses_maskiges(self, options: Mapping[str, Any]) -> bool:
        """Whether the network with these build options uses maskiges besides frames; by default no."""
        return False

    def train(self, run: MethodRun) -> TrainingSummary:
        """Train a run to its end, resuming from its last checkpoint; by default with the run's own loop."""
        return run.loops.train(run)

    def predict(self, run: MethodRun, split: Split) -> Path:
        """Write the trained run's submission for one split; by default with the run's own loop."""
        return run.loops.predict(run, split)

    @property
    def folder(self) -> Path:
        """The folder of the plugin's code."""
        return Path(inspect.getfile(type(self))).resolve().parent

    def card(self) -> str:
        """The model card, Markdown."""
        path = self.folder / "README.md"
        if not path.is_file():
            return f"# {self.name}\n\n{self.paper}\n"
        return path.read_text(encoding="utf-8", errors="replace")


@dataclass(frozen=True)
class Entry:
    """An installed plugin: a usable method, or the error with which loading it failed.

    Attributes:
        name: the entry point's name.
        origin: the distribution or folder it comes from.
        method: the plugin, ``None`` if it could not be loaded.
        error: type and message of the exception that loading it raised.
        traceback: the whole traceback, for ``avsb doctor``.
    """

    name: str
    origin: str
    method: Method | None
    error: str | None = None
    traceback: str = field(default="", repr=False)

    def require(self) -> Method:
        """Return the method; one that could not be loaded is an ``AvsbError`` with the reason."""
        if self.method is None:
            raise AvsbError(f"Method '{self.name}' from {self.origin} cannot be loaded: {self.error}")
        return self.method


def methods() -> dict[str, Entry]:
    """Return every installed plugin by name; broken ones are listed with their error.

    Raises:
        UsageError: two plugins claim the same name or alias.
    """
    entries: dict[str, Entry] = {}
    for point, origin in _points(entry_points):
        entry = _load(point, origin)
        if entry.name in entries:
            raise UsageError(
                f"Two plugins are called '{entry.name}': from {entries[entry.name].origin} and "
                f"from {entry.origin}. Uninstall one of them."
            )
        entries[entry.name] = entry
    _aliases(entries)
    return entries


def get_method(name: str) -> Method:
    """Return the method of that name, alias or folder.

    Args:
        name: a plugin's name or alias, or the path of a folder with a plugin that is not packaged.
    """
    if is_folder(name):
        return from_folder(Path(name))
    entries = methods()
    aliases = _aliases(entries)
    canonical = aliases.get(name.lower(), name.lower())
    if canonical not in entries:
        if (Path(name) / "__init__.py").is_file():
            raise UsageError(f"Unknown method '{name}'; for the folder of that name pass ./{name}.")
        raise unknown("method", name, [*entries, *aliases])
    return entries[canonical].require()


def is_folder(name: str) -> bool:
    """Whether ``--method`` is the path of a folder rather than a name."""
    return "/" in name or "\\" in name or name.startswith(".")


def from_folder(folder: Path) -> Method:
    """Import a folder as a package and return the one :class:`Method` that its ``__init__.py`` defines."""
    init = folder / "__init__.py"
    if not init.is_file():
        raise UsageError(f"{folder} is not a method: it has no __init__.py.")
    folder = folder.resolve()
    package = "avsb_method_" + hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    if package not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            package, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[package] = module
        try:
            spec.loader.exec_module(module)
        except PLUGIN_ERRORS as error:
            del sys.modules[package]
            raise AvsbError(f"{folder} cannot be imported: {describe(error)}.") from error
    return _only_method(sys.modules[package], folder)


def build(name: str, *, task: str, backbone: str, variant: str | None = None, **options: Any) -> Model:
    """Return a method's network with random weights, in evaluation mode; see :meth:`Method.build`.

    Args:
        name: the method's name, alias or folder.
        task: ``s4``, ``ms3`` or ``avss``.
        backbone: ``r50``, ``pvt``, ``swin_t`` or a timm name.
        variant: one of the method's, such as ``released`` or ``paper``; by default its first.
        options: the method's own build options.
    """
    method = get_method(name)
    with plugin_errors(f"{method.name} cannot build its network for {task} with {backbone}"):
        return method.build(get_task(task), backbone, variant=variant, **options).eval()


def check_task(method: Method, task: str) -> Task:
    """Return the task of that name; one that the method does not support is a ``UsageError``."""
    found = get_task(task)
    if found.name not in method.tasks:
        raise UsageError(
            f"{method.name} has no model for {found.name}; it supports {', '.join(method.tasks)}."
        )
    return found


def check_variant(method: Method, variant: str | None, task: str) -> str:
    """Return the variant of that name, or the task's default; an unknown one is a ``UsageError``."""
    if variant is None:
        return method.default_variant(task)
    if variant not in method.variants:
        raise unknown(f"variant of {method.name}", variant, method.variants)
    return variant


@functools.cache
def _points(source: Callable[..., Iterable[EntryPoint]]) -> tuple[tuple[EntryPoint, str], ...]:
    """The entry points of plugins in order, and the distribution of each; read once per process."""
    points = {(point.name, point.value): point for point in source(group=GROUP)}
    return tuple(
        (point, point.dist.name if point.dist is not None else point.value)
        for _, point in sorted(points.items())
    )


def _load(point: EntryPoint, origin: str) -> Entry:
    try:
        loaded = point.load()
        if not (inspect.isclass(loaded) and issubclass(loaded, Method)):
            raise TypeError(f"{point.value} is not a subclass of avsbench_harness.Method")
        return Entry(point.name, origin, _create(loaded))
    except PLUGIN_ERRORS as error:  # no exception of a plugin may hide the others
        return Entry(point.name, origin, None, describe(error), traceback.format_exc())


def _aliases(entries: Mapping[str, Entry]) -> dict[str, str]:
    aliases: dict[str, str] = {}
    for name, entry in entries.items():
        for alias in entry.method.aliases if entry.method else ():
            taken = name if alias in entries else aliases.get(alias)
            if taken is not None:
                raise UsageError(f"The method name '{alias}' is claimed by both '{taken}' and '{name}'.")
            aliases[alias] = name
    return aliases


def _only_method(module: ModuleType, folder: Path) -> Method:
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise UsageError(f"{folder}/__init__.py must define one subclass of Method, it defines {len(found)}.")
    try:
        return _create(found[0])
    except PLUGIN_ERRORS as error:
        raise AvsbError(f"{folder} cannot be used: {describe(error)}.") from error


def _create(kind: type[Method]) -> Method:
    """Create a plugin; a ``TypeError`` if one of its facts is missing or of a wrong type."""
    method = kind()
    for fact in ("name", "paper", "variants", "tasks", "backbones"):
        if not getattr(method, fact, None):
            raise TypeError(f"{kind.__name__} does not set '{fact}'")
    if not (isinstance(method.name, str) and _NAME.fullmatch(method.name)):
        raise TypeError(f"name of {kind.__name__} must be up to 60 of A-Z a-z 0-9 _ . -, not {method.name!r}")
    for fact in ("variants", "tasks", "backbones", "aliases"):
        values = getattr(method, fact)
        if not (isinstance(values, list | tuple) and all(isinstance(value, str) for value in values)):
            raise TypeError(f"{fact} of {kind.__name__} must be a tuple of text, not {values!r}")
    unknown_tasks = set(method.tasks) - set(TASKS)
    if unknown_tasks:
        raise TypeError(
            f"tasks of {kind.__name__} names {min(unknown_tasks)!r}; there are {', '.join(TASKS)}"
        )
    return method
