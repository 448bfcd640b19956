"""Finding the weights that a user names: a file, a run, or published weights in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avsbench_harness.errors import MissingDataError, UsageError, unknown
from avsbench_harness.files import read_json, sha256_file
from avsbench_harness.run_names import match_run
from avsbench_harness.weights import store
from avsbench_harness.weights.spec import WeightsSpec

#: Prefixes of a run's weights: the network, and the audio encoder that was trained with it.
MODEL, ENCODER = "model.", "encoder."

#: Keys of a run's spec that tell which network its weights are for.
FACTS = ("method", "variant", "task", "backbone")


@dataclass(frozen=True)
class Source:
    """Weights that were found.

    Attributes:
        path: safetensors file.
        spec: their entry in a run's spec.
        facts: the network that they are for, under the names of :data:`FACTS`; empty if unknown.
        preset: preset of the recipe that they are to be used with.
        recipe: the recipe of the run that they are of; ``None`` if unknown.
        has_encoder: whether they include an audio encoder.
    """

    path: Path
    spec: WeightsSpec
    facts: Mapping[str, str]
    preset: str = "full"
    recipe: Mapping[str, Any] | None = None
    has_encoder: bool = False


def find_weights(asked: str, out: Path, wanted: Mapping[str, str]) -> Source:
    """Find the weights that ``--weights`` or ``--init`` names.

    Args:
        asked: a run's folder or weights file, the id of a run under ``out`` or a unique prefix of it, a file
            that was imported, or the id of stored published weights or a prefix of one.
        out: the folder that holds ``runs/``.
        wanted: facts of the run that asks; they decide if several stored weights match.

    Raises:
        MissingDataError: a run has no weights yet, or stored weights are missing or damaged.
        UsageError: no weights or several have that name, or the file holds neither kind.
    """
    stored = _named(asked)
    if stored:
        return _published_source(_choose(stored, asked, wanted))
    for path in (Path(asked), out / "runs" / asked):
        if path.is_dir():
            if not (path / "weights.safetensors").is_file():
                raise MissingDataError(f"{path} has no weights.safetensors: that run is not trained yet.")
            return _run_source(path / "weights.safetensors")
    folder = None if Path(asked).is_file() else match_run(asked, out)
    if folder is not None:
        return find_weights(str(folder), out, wanted)
    if not Path(asked).is_file():
        runs = [folder.name for folder in (out / "runs").glob("*")]
        raise unknown("weights or run", asked, [*(entry.name for entry in store.published()), *runs])
    digest = sha256_file(Path(asked))
    stored = [entry for entry in store.published() if digest in (entry.source_sha256, entry.sha256)]
    return _published_source(_choose(stored, asked, wanted)) if stored else _run_source(Path(asked))


def check_facts(source: Source, wanted: Mapping[str, str], asked: str) -> None:
    """Refuse weights that are known to be for another network than ``wanted``."""
    if any(source.facts.get(name, value) != value for name, value in wanted.items()):
        found = {name: source.facts[name] for name in FACTS}
        raise UsageError(
            f"{asked} holds weights of {_describe(found)}, not of {_describe({**found, **wanted})}."
        )


def _named(asked: str) -> list[store.Published]:
    """The stored weights with this id, else those whose ids start with it."""
    entries = store.published()
    exact = [entry for entry in entries if entry.name == asked]
    return exact or [entry for entry in entries if entry.name.startswith(f"{asked}-")]


def _choose(entries: Sequence[store.Published], asked: str, wanted: Mapping[str, str]) -> store.Published:
    """The one of several stored entries that is for the network of the run that asks."""
    fitting = [e for e in entries if all(getattr(e, name) == value for name, value in wanted.items())]
    if len(entries) > 1 and len(fitting) != 1:
        names = ", ".join(entry.name for entry in fitting or entries)
        raise UsageError(f"'{asked}' matches {names}; name one of them.")
    entry = fitting[0] if fitting else entries[0]
    store.verified(entry)
    return entry


def _published_source(entry: store.Published) -> Source:
    facts = {name: getattr(entry, name) for name in FACTS}
    # The authors' file holds the raw weights too, so its hash does not name its average.
    sha256, file = (entry.sha256, f"{entry.file} (EMA)") if entry.ema else (entry.source_sha256, entry.file)
    return Source(entry.path, WeightsSpec(sha256=sha256, file=file, published=True), facts)


def _run_source(path: Path) -> Source:
    """A run's weights, recognised by their prefixes, with the facts of the run's spec if it is there."""
    names = _names(path)
    if not names or not all(name.startswith((MODEL, ENCODER)) for name in names):
        raise UsageError(
            f"{path} holds neither a run's weights nor published weights that were imported; "
            f"`avsb weights import METHOD {path} --task T --backbone B` imports published ones."
        )
    file, facts, preset, recipe = path.name, {}, "full", None
    spec = path.parent / "spec.json"
    if spec.is_file():
        values = read_json(spec)
        try:
            facts = {name: str(values[name]) for name in FACTS}
            file, preset = f"{path.parent.name}/{path.name}", str(values["preset"])
            recipe = dict(values["recipe"])
        except (KeyError, TypeError, ValueError):
            raise UsageError(f"{spec} is not the spec of a run; remove it or name other weights.") from None
    return Source(
        path,
        WeightsSpec(sha256=sha256_file(path), file=file, published=False),
        facts,
        preset,
        recipe,
        has_encoder=any(name.startswith(ENCODER) for name in names),
    )


def _names(path: Path) -> list[str]:
    """Names of the entries of a safetensors file; empty if it is another weights file."""
    from avsbench_harness.weights.state_files import check_kind
    from avsbench_harness.weights.tensors import meta_state_dict

    check_kind(path)
    return list(meta_state_dict(path)) if path.suffix == ".safetensors" else []


def _describe(facts: Mapping[str, str]) -> str:
    return f"{facts['method']} ({facts['variant']}) for {facts['task']} with {facts['backbone']}"
