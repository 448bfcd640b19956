"""Tables of a training's health report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from avsbench_harness.analysis.training_health import TrainingHealth
from avsbench_harness.analysis.updates import HIGHEST_RATIO, LOWEST_RATIO, ModuleStep


@dataclass(frozen=True)
class ReportTable:
    """A table of text.

    Attributes:
        title: title.
        note: meaning of the columns, empty if they are clear.
        headings: names of the columns.
        rows: cells.
    """

    title: str
    note: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def step_table(health: TrainingHealth) -> ReportTable:
    """Losses, gradient norm, learning rate and diagnostics of the observed steps."""
    steps = [
        {
            **facts.losses,
            "gradient norm": facts.gradient_norm,
            "learning rate": health.run.recipe.optimizer.lr * facts.lr_factor,
            **facts.diagnostics,
        }
        for facts in health.steps.values()
    ]
    names = dict.fromkeys(name for values in steps for name in values)  # a step may lack some
    rows = [[name, *(f"{step[name]:.4g}" if name in step else "n/a" for step in steps)] for name in names]
    return ReportTable("Steps", "", ["", *(f"step {number}" for number in health.steps)], rows)


def module_table(health: TrainingHealth) -> ReportTable:
    """Gradient norms, their shares, weight norms and update-to-weight ratios of all modules."""
    numbers = list(health.steps)
    headings = ["module", "weight", *(f"grad {number}" for number in numbers)]
    headings += [f"share {numbers[-1]}", *(f"ratio {number}" for number in numbers)]
    rows = []
    for module in health.modules:
        steps = [module.steps[number] for number in numbers]
        start = [module.name, f"{steps[-1].weight_norm:.3g}"]
        if module.frozen:
            rows.append([*start, *["frozen"] * (len(headings) - len(start))])
            continue
        norms = [_scientific(step.gradient_norm) for step in steps]
        rows.append([*start, *norms, f"{100 * steps[-1].share:.2f}%", *map(_ratio, steps)])
    note = (
        "norm of the weight matrices; in each step, norm of the gradients before clipping, their share of "
        "the squared norm of all gradients, and norm of the update of the weight matrices relative to "
        f"theirs, marked with ! outside of {LOWEST_RATIO:.0e} to {HIGHEST_RATIO:.0e}"
    )
    return ReportTable("Modules", note, headings, rows)


def attention_table(health: TrainingHealth) -> ReportTable | None:
    """Entropies of all attention layers; ``None`` if there are none."""
    if not health.attention:
        return None
    numbers = list(health.steps)
    headings = ["layer", "keys", *(f"entropy {number}" for number in numbers), f"lowest head {numbers[-1]}"]
    rows = []
    for name, steps in health.attention.items():
        last = list(steps.values())[-1]
        cells = [_share(steps[number].entropy if number in steps else None) for number in numbers]
        rows.append([name, f"{last.keys:.4g}", *cells, _share(last.lowest_head)])
    note = "in each step; 1 is uniform attention, 0 is attention to one key"
    return ReportTable("Attention entropy", note, headings, rows)


def _ratio(step: ModuleStep) -> str:
    if step.update_ratio is None:
        return "n/a"
    return _scientific(step.update_ratio) + (" !" if step.out_of_range() else "")


def _scientific(value: float) -> str:
    """Two digits and a short exponent, such as 1.3e-4."""
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits}e{int(exponent)}"


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
