"""The recipe's ``keep``: weights of other steps than the selected one, ``saved/step-<n>.safetensors``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from avsbench_harness.data.epochs import Epochs
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.method import Validation
from avsbench_harness.recipe.schema import KeepRecipe
from avsbench_harness.weights.tensors import save_tensors


def kept_steps(
    keep: KeepRecipe, epochs: Epochs, step: int, total: int, validations: Sequence[Validation], metric: str
) -> set[int]:
    """The steps up to ``step`` after which weights are kept.

    Args:
        keep: the recipe's rule.
        epochs: the epochs of the training.
        step: number of steps done.
        total: number of steps of the training; an incomplete last epoch ends there.
        validations: all validations so far.
        metric: the validation metric that selects.
    """
    complete = epochs.of(step)
    ends = [epochs.start(epoch) for epoch in range(1, complete + 1)]
    if step == total and step not in ends:
        ends.append(step)
    kept = set(ends[-keep.last :] if keep.last else [])
    if keep.every is not None:
        kept |= set(ends[keep.every - 1 :: keep.every])
    if keep.best > 1:  # the selected weights have a file of their own
        scored = [(value, one.step) for one in validations if (value := one.metrics.get(metric)) is not None]
        scored.sort(key=lambda entry: (-entry[0], entry[1]))
        kept |= {at for _, at in scored[: keep.best]}
    return kept


def save_weights(folder: Path, kept: set[int], step: int, weights: Mapping[str, Tensor]) -> None:
    """Write the weights of the current step if they are kept, and remove those that are not kept any more.

    Args:
        folder: the run's folder.
        kept: see :func:`kept_steps`.
        step: the current step.
        weights: the system's state dict.
    """
    path = saved_file(folder, step)
    if step in kept and not path.is_file():
        save_tensors(path, weights)
    for old in saved_steps(folder):
        if old not in kept:
            saved_file(folder, old).unlink()


def saved_file(folder: Path, step: int) -> Path:
    """The file of the weights after a step."""
    return folder / "saved" / f"step-{step:08d}.safetensors"


def saved_steps(folder: Path) -> list[int]:
    """The steps whose weights are kept in a run's folder."""
    return sorted(
        int(path.stem.removeprefix("step-")) for path in (folder / "saved").glob("step-*.safetensors")
    )


def choose_saved(run: Run, asked: str) -> list[int]:
    """The steps that ``--saved`` names: ``all``, or one of them.

    Raises:
        MissingDataError: the run has kept none.
        UsageError: it has not kept that one.
    """
    steps = saved_steps(run.folder)
    if not steps:
        raise MissingDataError(
            f"{run.id} has kept no weights besides the selected ones; train it with --set keep.every=1, in "
            "another --out if it is finished."
        )
    if asked == "all":
        return steps
    if not asked.isdigit() or int(asked) not in steps:
        raise UsageError(f"--saved {asked} is none of the kept steps: all, {', '.join(map(str, steps))}.")
    return [int(asked)]
