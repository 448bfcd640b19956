"""Import of published weights for a method that is installed or lies in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

from avsbench_harness.method import Method, check_task, check_variant, get_method, methods
from avsbench_harness.tasks import get_task
from avsbench_harness.weights.published import Candidate, Imported, import_published


def import_weights(
    method_name: str,
    file: Path,
    *,
    task: str,
    backbone: str,
    variant: str | None = None,
    ema: bool = False,
) -> Imported:
    """Check published weights against a method's network and store them under its names.

    Args:
        method_name: the method's name, alias or folder.
        file: as the authors published it, see :func:`avsbench_harness.weights.state_files.read_state`.
        task: ``s4``, ``ms3`` or ``avss``.
        backbone: ``r50``, ``pvt`` or another one with published weights.
        variant: defaults to the method's default for the task.
        ema: import the exponential moving average of the weights instead of the raw ones.

    Raises:
        UsageError: the file cannot be read safely, or does not fit; the message names what it looks like.
    """
    method = get_method(method_name)
    name = check_task(method, task).name
    wanted = _candidate(method, name, backbone, check_variant(method, variant, name))
    return import_published(file, wanted, candidates(), ema=ema)


def candidates() -> Iterator[Candidate]:
    """Networks of all installed methods in all variants; that of the published weights may be any of them."""
    for entry in methods().values():
        if (method := entry.method) is not None:
            for variant, backbone, task in product(method.variants, method.backbones, method.tasks):
                yield _candidate(method, task, backbone, variant)


def _candidate(method: Method, task: str, backbone: str, variant: str) -> Candidate:
    build = partial(method.build, get_task(task), backbone, variant=variant)
    return Candidate(method.name, variant, task, backbone, build)
