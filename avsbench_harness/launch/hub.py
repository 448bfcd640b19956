"""Trained weights on the Hugging Face Hub: weights, spec, record and model card of a run; never data."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from avsbench_harness.engine.run import RunSpec
from avsbench_harness.errors import AvsbError, MissingDataError, UsageError, one_line, printable
from avsbench_harness.files import read_json, sha256_file
from avsbench_harness.method import get_method, methods
from avsbench_harness.results.record import Record, read_record
from avsbench_harness.weights.tensors import meta_state_dict

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: Files of a repository, with the largest size that is downloaded, bytes.
FILES: Mapping[str, int] = {
    "weights.safetensors": 16 << 30, "spec.json": 4 << 20, "record.json": 4 << 20, "README.md": 4 << 20,
}  # fmt: skip

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


@dataclass(frozen=True)
class Pushed:
    """A run that was uploaded: the repository's page, and its files."""

    url: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Pulled:
    """A run that was downloaded: its folder, spec and record, and the commit of the repository."""

    folder: Path
    spec: RunSpec
    record: Record
    commit: str


def push(
    folder: Path,
    repository: str,
    results: Path,
    *,
    licence: str | None = None,
    private: bool = False,
    api: HfApi | None = None,
) -> Pushed:
    """Upload a scored run in one commit; the repository is created if it does not exist.

    Args:
        folder: the run's folder.
        repository: ``owner/name``.
        results: folder with the records.
        licence: identifier for the model card, such as ``apache-2.0``; the owner of the weights decides it.
        private: of a new repository.
        api: client; by default one with the user's stored token or ``HF_TOKEN``.

    Raises:
        UsageError: the repository has no valid name, or the folder is not that of a run.
        MissingDataError: the run has no weights or no record with scores, or the extra is missing.
        AvsbError: the Hub refused the upload.
    """
    _check_name(repository)
    weights, spec_file = folder / "weights.safetensors", folder / "spec.json"
    if not weights.is_file() or not spec_file.is_file():
        raise MissingDataError(f"{folder} has no weights.safetensors and spec.json: that run is not trained.")
    spec = RunSpec.parse(read_json(spec_file), str(spec_file))
    path = results / f"{spec.run_id}.json"
    if not path.is_file() or (record := read_record(path)).status != "done":
        raise MissingDataError(f"{path} has no scores of the run; `avsb score` writes the record.")
    hub, api = _client(api)
    contents: dict[str, Path | bytes] = {
        "weights.safetensors": weights,
        "spec.json": spec_file,
        "record.json": path,
        "README.md": model_card(spec, record, repository, licence).encode(),
    }
    with _errors(repository):
        url = api.create_repo(repository, private=private, exist_ok=True)
        operations = [hub.CommitOperationAdd(name, content) for name, content in contents.items()]
        api.create_commit(repository, operations, commit_message=f"{spec.run_id}")
    return Pushed(str(url), tuple(contents))


def pull(repository: str, out: Path, *, revision: str | None = None, api: HfApi | None = None) -> Pulled:
    """Download a run; its folder can be named wherever weights are asked for.

    Sizes are checked before anything is downloaded, and the weights against the hash in the record.

    Args:
        repository: ``owner/name``.
        out: folder in which ``owner--name`` is written; an existing one is replaced if it is complete.
        revision: branch, tag or commit; defaults to the main branch.
        api: as in :func:`push`.

    Raises:
        UsageError: the repository's name, files or contents are not those of a run.
        AvsbError: the Hub cannot be reached, or has no such repository.
    """
    _check_name(repository)
    _, api = _client(api)
    target = out / folder_name(repository)
    if target.exists() and not (target / "weights.safetensors").is_file():
        raise UsageError(f"{target} exists and holds no run; pass another folder with --out, or remove it.")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".pull-") as name:
        fresh = Path(name) / "run"
        with _errors(repository):
            info = api.model_info(repository, revision=revision, files_metadata=True)
        commit = str(info.sha)
        _check_sizes(repository, {file.rfilename: file.size for file in info.siblings or []})
        for file in FILES:
            with _errors(repository):
                api.hf_hub_download(repository, file, revision=commit, local_dir=fresh)
        spec, record = _read(repository, fresh)
        shutil.rmtree(fresh / ".cache", ignore_errors=True)  # the client's notes
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
    return Pulled(target, spec, record, commit)


def model_card(spec: RunSpec, record: Record, repository: str, licence: str | None) -> str:
    """A model card with the scores as ``model-index``, in percent."""
    data = record.data
    results = [
        {
            "task": {"type": "image-segmentation", "name": f"audio-visual segmentation ({record.task})"},
            "dataset": {"type": "avsbench", "name": data.name, "split": data.split},
            "metrics": [
                {"type": name, "name": f"{name}, {entry.protocol}, percent", "value": round(100 * value, 2)}
                for name in entry.main
                if (value := entry.metrics.get(name)) is not None
            ],
        }
        for entry in record.scores
        if entry.part == "all"
    ]
    header: dict[str, Any] = {
        "library_name": "avsbench-harness",
        "tags": ["audio-visual-segmentation", record.task, spec.method],
        "model-index": [{"name": spec.run_id, "results": results}],
    }
    if licence is not None:
        header["license"] = licence
    front = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    rows = "\n".join(
        f"| {entry.protocol} | {name} | {100 * value:.1f} |"
        for entry in record.scores
        if entry.part == "all"
        for name in entry.main
        if (value := entry.metrics.get(name)) is not None
    )
    network = f"{spec.method} ({spec.variant}) with {spec.backbone}, {spec.task}, seed {spec.seed}"
    options = f"--method {spec.method} --backbone {spec.backbone} --task {spec.task}"
    return f"""---
{front}---

# {spec.run_id}

{network}, trained on {data.name} with avsbench-harness {record.environment.harness}. Scores on {data.split},
in percent:

| protocol | metric | value |
|---|---|---|
{rows}

`spec.json` holds the recipe, `record.json` the scores with their intervals.

```sh
avsb hub pull {repository}
avsb predict {options} --weights {folder_name(repository)}
```

{_own_card(spec.method)}"""


def folder_name(repository: str) -> str:
    """Name of the folder of a downloaded repository."""
    return repository.replace("/", "--")


def _own_card(method: str) -> str:
    """The method's model card, one level deeper; empty for a method that is not installed."""
    if method not in methods():
        return ""
    return re.sub(r"^(#+ )", r"#\1", get_method(method).card(), flags=re.MULTILINE)


def _check_name(repository: str) -> None:
    if not _REPOSITORY.fullmatch(repository):
        raise UsageError(f"A repository is named OWNER/NAME; got '{one_line(repository, 100)}'.")


def _check_sizes(repository: str, sizes: Mapping[str, int | None]) -> None:
    for name, limit in FILES.items():
        if name not in sizes:
            raise UsageError(f"{repository} has no {name}: it was not written by `avsb hub push`.")
        size = sizes[name]
        if size is None or size > limit:
            raise UsageError(f"{name} of {repository} has {size} bytes, and at most {limit} are downloaded.")


def _read(repository: str, folder: Path) -> tuple[RunSpec, Record]:
    """Check the downloaded files against each other."""
    spec = RunSpec.parse(read_json(folder / "spec.json"), f"spec.json of {repository}")
    record = read_record(folder / "record.json")
    trained = record.training.weights_sha256 if record.training else None
    if record.spec_hash != spec.hash or trained != sha256_file(folder / "weights.safetensors"):
        raise UsageError(f"Weights, spec and record of {repository} do not belong together.")
    meta_state_dict(folder / "weights.safetensors")
    return spec, record


def _client(api: HfApi | None) -> tuple[Any, HfApi]:
    try:
        import huggingface_hub
    except ImportError:
        raise MissingDataError(
            '`avsb hub` needs the extra hub: pip install "avsbench-harness[hub]".'
        ) from None
    return huggingface_hub, huggingface_hub.HfApi() if api is None else api


@contextmanager
def _errors(repository: str) -> Iterator[None]:
    """Report errors of the Hub's client in one sentence."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise AvsbError(
            f"The Hub refused the access to {repository}: {printable(one_line(str(error), 200))}"
        ) from None
