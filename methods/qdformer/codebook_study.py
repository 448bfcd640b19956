"""Measure the codebook learning of a grid of runs: scores, use of the audio, and use of the codes.

``python -m avsbench_methods.qdformer.codebook_study GRID --out FOLDER`` trains the unfinished runs, and
prints a table with the mean and the standard deviation over the seeds. See ``codebook_study.yaml``.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avsbench_harness.data.batch import Batch
from avsbench_harness.data.loader import ClipDataset, in_order, load
from avsbench_harness.engine.predict import evaluation_clips, to_masks
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.solutions import solution_file
from avsbench_harness.engine.system import System, build_system, set_determinism
from avsbench_harness.errors import UsageError
from avsbench_harness.launch.execute import execute
from avsbench_harness.launch.grid import read_grid
from avsbench_harness.launch.sweep import cells
from avsbench_harness.scoring import score_object
from avsbench_harness.submission import encode, read_solution
from avsbench_harness.weights.tensors import load_tensors

from .model import QDFormerModel, QDFormerOutput
from .quantization import perplexity

#: Columns of the table.
MEASURES = ("J", "J swapped", "clip perplexity", "frame perplexity", "frames on clip codes", "codes of clips")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and measure the runs of a grid, and print the table."""
    parser = argparse.ArgumentParser(prog="codebook_study", description=__doc__)
    parser.add_argument("grid", type=Path, help="the grid, YAML")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for runs/ and results/")
    given = parser.parse_args(arguments)
    found: dict[str, list[dict[str, float]]] = {}
    planned = cells(read_grid(given.grid), given.out, "cpu")
    for cell in sorted(
        planned, key=lambda cell: cell.request.seed
    ):  # the first seed of every row comes first
        if cell.run is None:
            raise UsageError(f"{cell.name}: {cell.problem}")
        execute(cell.run)
        found.setdefault(cell.row, []).append(measure(cell.run))
        print(table(found), flush=True)


def measure(run: Run) -> dict[str, float]:
    """Measure a trained run on the test split of an object task.

    Returns:
        ``J``, and ``J swapped`` with the audio of the next clip; of the codes of all clip and frame tokens of
        the split, their perplexities, the share of frame tokens whose code is also that of a clip token,
        and the number of codes of clip tokens.
    """
    set_determinism(run)
    system = build_system(run, pretrained=False)
    system.load_state_dict(load_tensors(run.weights_file))
    system.to(run.device).eval()
    dataset = evaluation_clips(run, "test")
    ids = [clip.id for clip in dataset.clips]
    swapped = ClipDataset(
        dataset.source, {own: dataset.audio[other] for own, other in zip(ids, ids[1:] + ids[:1], strict=True)}
    )
    return {
        "J": score(run, system, dataset),
        "J swapped": score(run, system, swapped),
        **code_usage(system, batches(run, system, dataset)),
    }


def batches(run: Run, system: System, dataset: ClipDataset) -> Iterator[Batch]:
    """Yield the clips of a dataset in order, with embedded audio."""
    order = in_order(len(dataset), run.recipe.batch_size)
    for batch in load(dataset, order, workers=run.workers, device=run.device):
        with torch.no_grad():
            yield system.embed(batch.to(run.device))


def score(run: Run, system: System, dataset: ClipDataset) -> float:
    """Return J of the predictions for the test split."""
    predicted = []
    for batch in batches(run, system, dataset):
        with torch.no_grad():
            predicted += [encode(to_masks(clip, run.task)) for clip in system.model.predict(batch)]
    with read_solution(solution_file(run.dataset, "test")) as solution:
        truth = [masks for _, masks in solution]
    metrics = score_object(np.stack(predicted), np.stack(truth)).metrics
    assert metrics["J"] is not None  # defined for every split
    return metrics["J"]


def code_usage(system: System, clips: Iterator[Batch]) -> dict[str, float]:
    """Return the usage of the codes by all tokens of some clips, in evaluation mode."""
    model = system.model
    assert isinstance(model, QDFormerModel)
    assert model.quantizer is not None  # the study is about quantised tokens
    size = len(model.quantizer.codebook)
    of_clips, of_frames = torch.zeros(size), torch.zeros(size)
    for batch in clips:
        with torch.no_grad():
            output: QDFormerOutput = model(batch)
        of_clips += counts(model, output.clip_tokens)
        if output.frame_tokens is not None:
            of_frames += counts(model, output.frame_tokens[batch.valid_frames()])
    return {
        "clip perplexity": perplexity(of_clips / of_clips.sum()),
        "frame perplexity": perplexity(of_frames / of_frames.sum().clamp(min=1)),
        "frames on clip codes": float(of_frames[of_clips > 0].sum() / of_frames.sum().clamp(min=1)),
        "codes of clips": float((of_clips > 0).sum()),
    }


def counts(model: QDFormerModel, tokens: Tensor) -> Tensor:
    """Return the number of tokens (...,dim) with each code, (K,)."""
    assert model.quantizer is not None
    found = model.quantizer.nearest(tokens).flatten().cpu()
    return torch.bincount(found, minlength=len(model.quantizer.codebook))


def table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Return the Markdown table of each row's measures: mean and standard deviation over its seeds."""
    lines = [f"| row | seeds | {' | '.join(MEASURES)} |", "|" + "---|" * (len(MEASURES) + 2)]
    for row, seeds in found.items():
        values = [[measures[name] for measures in seeds] for name in MEASURES]
        shown = [f"{statistics.mean(own):.3f} ± {statistics.pstdev(own):.3f}" for own in values]
        lines.append(f"| {row} | {len(seeds)} | {' | '.join(shown)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
