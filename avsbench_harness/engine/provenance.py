"""The code and the number of threads that a run's files were made with.

A run's id holds the version of the code, which stays the same when the files of an editable install change,
and it does not depend on the number of threads, which changes the order of sums on the CPU. Both are recorded
in the run's folder, and differences are logged when the run is resumed.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Iterable
from pathlib import Path

import torch

from avsbench_harness.engine.run import Run
from avsbench_harness.errors import UsageError
from avsbench_harness.files import read_json, write_json
from avsbench_harness.method import Method
from avsbench_harness.schema import Schema

logger = logging.getLogger(__name__)

#: The files that determine what a method or the harness computes.
_CODE = (".py", ".yaml")


class Attempt(Schema):
    """The code and threads of one attempt at a run.

    Attributes:
        method: SHA-256 of the method's files.
        harness: SHA-256 of the harness's files.
        threads: of torch on the CPU; ``None`` if the run is on a GPU.
    """

    method: str
    harness: str
    threads: int | None


class Provenance(Schema):
    """All different attempts at a run, in order; ``provenance.json`` in its folder."""

    attempts: list[Attempt]


def record_attempt(run: Run) -> None:
    """Add this attempt to the run's ``provenance.json``, and warn if it differs from earlier ones.

    The caller must hold the run's lock.
    """
    now, earlier = _attempt(run), _attempts(run)
    _warn(run, now, earlier)
    if now not in earlier:
        found = Provenance(attempts=[*earlier, now])
        write_json(run.folder / "provenance.json", found.model_dump(mode="json"))


def check_attempt(run: Run) -> None:
    """Warn if the code or the number of threads is of no recorded attempt at the run."""
    now, earlier = _attempt(run), _attempts(run)
    if now not in earlier:
        _warn(run, now, earlier)


def code_hash(files: Iterable[Path], folder: Path) -> str:
    """The SHA-256 of the names, relative to a folder, and contents of files, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def method_hash(method: Method) -> str:
    """The hash of a method's own files: its package, or its module if that is in no package."""
    folder = method.folder
    if not (folder / "__init__.py").is_file():
        return code_hash([Path(inspect.getfile(type(method))).resolve()], folder)
    return code_hash(_files(folder), folder)


def harness_hash() -> str:
    """The hash of the files of the harness."""
    folder = Path(__file__).resolve().parents[1]
    return code_hash(_files(folder), folder)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in _CODE and path.is_file()]


def _attempt(run: Run) -> Attempt:
    threads = torch.get_num_threads() if run.device == "cpu" else None
    return Attempt(method=method_hash(run.method), harness=harness_hash(), threads=threads)


def _attempts(run: Run) -> list[Attempt]:
    """The recorded attempts; none if the file is missing or damaged."""
    path = run.folder / "provenance.json"
    try:
        return Provenance.parse(read_json(path), str(path)).attempts
    except FileNotFoundError:
        return []
    except (UsageError, TypeError, ValueError) as error:
        logger.warning(f"{path} is replaced: {error}")
        return []


def _warn(run: Run, now: Attempt, earlier: list[Attempt]) -> None:
    """Log the differences between this attempt and earlier ones."""
    code = [
        name
        for name, changed in (
            (f"of {run.spec.method}", any(one.method != now.method for one in earlier)),
            ("of the harness", any(one.harness != now.harness for one in earlier)),
        )
        if changed
    ]
    if code:
        logger.warning(
            f"The code {' and '.join(code)} has changed since {run.id} was started, so its result mixes two "
            f"versions. Remove {run.folder} to start it again, or raise the version of the package."
        )
    others = sorted({one.threads for one in earlier if one.threads is not None} - {now.threads})
    if others and now.threads is not None:
        logger.warning(
            f"{run.id} was started with {' and '.join(map(str, others))} threads and continues with "
            f"{now.threads}, so its result is not bitwise reproducible; set OMP_NUM_THREADS={others[0]} to "
            "keep the number."
        )
