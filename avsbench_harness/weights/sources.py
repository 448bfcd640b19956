"""Finding the weights that a user names: a file, a run, or a published checkpoint in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from avsbench_harness.engine.load_weights import ENCODER, MODEL, outline, take_over
from avsbench_harness.engine.run import Run, RunSpec, WeightsSpec
from avsbench_harness.engine.system import build_system
from avsbench_harness.errors import MissingDataError, UsageError, unknown
from avsbench_harness.files import read_json, sha256_file
from avsbench_harness.nn.meta import on_meta
from avsbench_harness.weights import store

#: What of a run's spec says which network weights are of.
FACTS = ("method", "variant", "task", "backbone")

SKIP_HINT = " The recipe's init_skip leaves entries out, class heads for example, by how their names begin."


@dataclass(frozen=True)
class Source:
    """Weights as they were found.

    Attributes:
        path: safetensors file.
        spec: how a run's spec names them.
        facts: what they are of, under the names of :data:`FACTS`; empty if nothing tells.
        preset: of the recipe that they are to be used with.
        has_encoder: whether an audio encoder that was trained along is among them.
    """

    path: Path
    spec: WeightsSpec
    facts: Mapping[str, str]
    preset: str = "full"
    has_encoder: bool = False


def find_weights(asked: str, out: Path, wanted: Mapping[str, str]) -> Source:
    """The weights that ``--from-checkpoint`` or ``--init`` names.

    Args:
        asked: a run's folder or weights file, the id of a run under ``out``, a file that was imported, or
            the id of a stored checkpoint or the beginning of one.
        out: the folder that holds ``runs/``.
        wanted: facts of the run that asks, which decide between stored checkpoints that are alike.

    Raises:
        MissingDataError: a run has no weights yet.
        UsageError: nothing is called that, several are, or the file is neither.
    """
    stored = [entry for entry in store.published() if _is_called(entry, asked)]
    if stored:
        return _published(_only(stored, asked, wanted))
    for path in (Path(asked), out / "runs" / asked):
        if path.is_dir():
            if not (path / "weights.safetensors").is_file():
                raise MissingDataError(f"{path} has no weights.safetensors: that run is not trained yet.")
            return _of_run(path / "weights.safetensors")
    if not Path(asked).is_file():
        runs = [folder.name for folder in (out / "runs").glob("*")]
        raise unknown("checkpoint or run", asked, [*(entry.name for entry in store.published()), *runs])
    digest = sha256_file(Path(asked))
    stored = [entry for entry in store.published() if digest in (entry.source_sha256, entry.sha256)]
    return _published(_only(stored, asked, wanted)) if stored else _of_run(Path(asked))


def check_facts(source: Source, wanted: Mapping[str, str], asked: str) -> None:
    """Refuse weights that are known to be of something else than ``wanted``."""
    if any(source.facts.get(name, value) != value for name, value in wanted.items()):
        named = {name: source.facts[name] for name in FACTS}
        raise UsageError(
            f"{asked} holds weights of {_describe(named)}, not of {_describe({**named, **wanted})}."
        )


def check_fit(run: Run, source: Source, asked: str, skip: Sequence[str] = ()) -> None:
    """Refuse weights whose names or shapes are not those of a run's network, which takes no memory for it.

    Raises:
        UsageError: they do not fit.
    """
    system = on_meta(lambda: build_system(run, pretrained=False))
    state = outline(source.path, published=source.spec.published)
    try:
        take_over(system, state, skip)
    except UsageError as error:
        hint = "" if run.spec.init is None or "of another shape" not in str(error) else SKIP_HINT
        raise UsageError(f"{asked}: {error}{hint}") from None


def _is_called(entry: store.Published, asked: str) -> bool:
    return entry.name == asked or entry.name.startswith(f"{asked}-")


def _only(entries: Sequence[store.Published], asked: str, wanted: Mapping[str, str]) -> store.Published:
    """The one of several stored checkpoints that fits the run that asks."""
    fitting = [e for e in entries if all(getattr(e, name) == value for name, value in wanted.items())]
    if len(entries) > 1 and len(fitting) != 1:
        names = ", ".join(entry.name for entry in fitting or entries)
        raise UsageError(f"'{asked}' can be any of {names}; name one of them.")
    entry = fitting[0] if fitting else entries[0]
    if not entry.path.is_file():
        raise MissingDataError(f"The stored checkpoint {entry.name} is gone from the cache; import it again.")
    return entry


def _published(entry: store.Published) -> Source:
    facts = {name: getattr(entry, name) for name in FACTS}
    return Source(entry.path, WeightsSpec(sha256=entry.source_sha256, file=entry.file, published=True), facts)


def _of_run(path: Path) -> Source:
    """A run's weights, told by the beginnings of their names, and what the run's spec says of them."""
    names = _names(path)
    if not names or not all(name.startswith((MODEL, ENCODER)) for name in names):
        raise UsageError(
            f"{path} holds neither a run's weights nor a checkpoint that was imported; "
            f"`avsb weights import METHOD {path} --task T --backbone B` imports a published one."
        )
    file, facts, preset = path.name, {}, "full"
    if (path.parent / "spec.json").is_file():
        spec = RunSpec.parse(read_json(path.parent / "spec.json"), str(path.parent / "spec.json"))
        file, preset = f"{path.parent.name}/{path.name}", spec.preset
        facts = {name: getattr(spec, name) for name in FACTS}
    return Source(
        path,
        WeightsSpec(sha256=sha256_file(path), file=file, published=False),
        facts,
        preset,
        has_encoder=any(name.startswith(ENCODER) for name in names),
    )


def _names(path: Path) -> list[str]:
    """The entries' names in a safetensors file; none if it is not one."""
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError):
        return []


def _describe(facts: Mapping[str, str]) -> str:
    return f"{facts['method']} ({facts['variant']}) for {facts['task']} with {facts['backbone']}"
