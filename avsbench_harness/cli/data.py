"""``avsb data check``, ``info``, ``maskige``, ``propagate``, ``cache``, ``solution`` and ``baselines``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsbench_harness.cli import generate
from avsbench_harness.cli.baselines import baselines
from avsbench_harness.cli.common import JobsOption, JsonOption, RequiredTaskOption, print_json, print_rich
from avsbench_harness.errors import MissingDataError, UsageError, unknown

if TYPE_CHECKING:
    from avsbench_harness.data.maskige import NamedSegmenter

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Check, describe, generate and cache data sets."
)

SplitsOption = Annotated[
    list[str] | None, typer.Option("--split", help="Only this split; default: all three.")
]
app.command()(generate.synth)
app.command()(generate.mini)
app.command()(generate.compose)
app.command()(baselines)

RootArgument = Annotated[Path | None, typer.Argument(help="Folder with AVSBench; default: AVSB_DATA_DIR.")]


def _root(given: Path | None) -> Path:
    from avsbench_harness.data.avsbench.tree import data_root

    root = data_root(given)
    if root is None:
        raise MissingDataError("No data root: pass the folder that contains AVSBench, or set AVSB_DATA_DIR.")
    return root


@app.command()
def check(
    root: RootArgument = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", help="Only this task; default: all that are found.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Open every file and list all that are missing, unreadable, or of the wrong size or content.

    Frames, masks, recordings and log-mel pickles are decoded; the classes in AVSS masks are compared with
    metadata.csv. Recordings of another length than their clip and unlisted classes are warnings.
    Exit code: 0 if there is no fault, 4 if something is missing, else 2.

    \b
    Examples:
      avsb data check AVSBench
      avsb data check AVSBench --task s4 --json
    """
    from avsbench_harness.console import progress_bar
    from avsbench_harness.data.avsbench.check import check_dataset
    from avsbench_harness.data.avsbench.report import render_report
    from avsbench_harness.tasks import get_task

    tasks = [get_task(name) for name in task] if task else None
    with progress_bar() as progress:
        display = progress.add_task("check", total=None, note="")
        report = check_dataset(
            _root(root),
            tasks,
            progress=lambda done, total: progress.update(display, completed=done, total=total),
        )
    if json:
        print_json(report.to_json())
    else:
        print_rich(render_report(report))
    if report.missing:
        raise typer.Exit(MissingDataError.exit_code)
    if not report.ok:
        raise typer.Exit(UsageError.exit_code)


@app.command()
def info(root: RootArgument = None, json: JsonOption = False) -> None:
    """Show tasks, splits, numbers of clips and fingerprints, without opening the files.

    \b
    Examples:
      avsb data info AVSBench
    """
    from avsbench_harness.data.avsbench.describe import describe_dataset, render_description

    found = describe_dataset(_root(root))
    if json:
        print_json([task.to_json() for task in found])
    else:
        print_rich(render_description(found))


@app.command()
def maskige(
    task: RequiredTaskOption,
    root: RootArgument = None,
    split: SplitsOption = None,
    segmenter: Annotated[
        str,
        typer.Option("--segmenter", help="Segmenter: felzenszwalb (no weights) or sam."),
    ] = "felzenszwalb",
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="For sam: folder with a Segment Anything model of transformers."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", help="For sam: cpu, cuda or cuda:N; defaults to CUDA if available."),
    ] = None,
    jobs: JobsOption = None,
    json: JsonOption = False,
) -> None:
    """Make maskiges, images of class-agnostic masks that are an additional input of COMBO.

    They are written to the cache; existing ones are kept. They differ from the authors' maskiges, which are
    made by another segmenter; the recipe's `maskige: published` reads those from beside the frames.

    \b
    Examples:
      avsb data maskige AVSBench --task s4
      avsb data maskige AVSBench --task ms3 --split test --jobs 8
      avsb data maskige AVSBench --task s4 --segmenter sam --weights sam-vit-huge
    """
    from avsbench_harness.console import counter
    from avsbench_harness.data.avsbench.layout import open_dataset
    from avsbench_harness.data.maskige import SEGMENTERS, make_maskiges
    from avsbench_harness.tasks import SPLITS, get_split, get_task

    if segmenter not in (*SEGMENTERS, "sam"):
        raise unknown("segmenter", segmenter, (*SEGMENTERS, "sam"))
    chosen: str | NamedSegmenter = segmenter
    if segmenter == "sam":
        chosen = _sam(weights, device, jobs)
    elif weights is not None or device is not None:
        raise UsageError(
            f"--weights and --device have no effect on the segmenter {segmenter}; leave them out."
        )
    source = chosen if isinstance(chosen, str) else chosen.name
    dataset = open_dataset(_root(root), get_task(task))
    splits = [get_split(name) for name in split] if split else list(SPLITS)
    clips = [clip for part in splits for clip in dataset.clips(part)]
    with counter("maskiges", len(clips)) as advance:
        made = make_maskiges(clips, chosen, jobs=jobs, progress=advance)
    if json:
        print_json({"clips": len(clips), "made": made, "segmenter": segmenter, "source": source})
    else:
        typer.echo(f"{made} maskiges made for {len(clips)} clips; use them with --set maskige={source}")


def _sam(weights: Path | None, device: str | None, jobs: int | None) -> NamedSegmenter:
    """Load the Segment Anything model of the options."""
    if weights is None:
        raise UsageError("--segmenter sam needs --weights FOLDER, a Segment Anything model of transformers.")
    if jobs is not None:
        raise UsageError(
            "--jobs has no effect on the segmenter sam, which runs in one process; leave it out."
        )
    from avsbench_harness.data.sam import Sam

    return Sam(weights, device)


@app.command()
def propagate(
    root: RootArgument = None,
    flow: Annotated[
        str | None, typer.Option("--flow", help="Optical flow: tvl1 (slow, the default) or ilk (fast).")
    ] = None,
    given: Annotated[
        Path | None, typer.Option("--from", help="Import masks of another source, in the layout of gt_masks.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the masks; default: the cache.")
    ] = None,
    jobs: JobsOption = None,
    json: JsonOption = False,
) -> None:
    """Make pseudo-masks for the training frames of S4 that are not annotated, for methods such as CATR*.

    The first frame's mask is propagated through the clip by optical flow, or masks of another program are
    checked and imported. They are written to the cache; existing ones are kept.

    \b
    Examples:
      avsb data propagate AVSBench
      avsb data propagate AVSBench --flow ilk --jobs 8
      avsb data propagate AVSBench --from aot-masks
    """
    from avsbench_harness.console import counter
    from avsbench_harness.data.avsbench.layout import open_dataset
    from avsbench_harness.data.propagate import import_masks
    from avsbench_harness.data.propagate import propagate as make_masks
    from avsbench_harness.tasks import S4

    if flow is not None and given is not None:
        raise UsageError("--flow makes masks and --from imports masks; pass one of them.")
    dataset = open_dataset(_root(root), S4)
    count = dataset.counts()["train"]
    with counter("pseudo-masks", count) as advance:
        if given is not None:
            source, made = import_masks(dataset, given, out=out, jobs=jobs, progress=advance)
        else:
            source = flow or "tvl1"
            made = make_masks(dataset, source, out=out, jobs=jobs, progress=advance)
    if json:
        print_json({"clips": count, "made": made, "source": source, "out": None if out is None else str(out)})
    else:
        use = (
            f"use them with --set supplement={source}"
            if out is None
            else f"they are in {out}; use them by `avsb data propagate {dataset.root} --from {out}`"
        )
        typer.echo(f"{made} pseudo-masks made for {count} clips; {use}")


@app.command()
def cache(
    task: RequiredTaskOption,
    root: RootArgument = None,
    split: SplitsOption = None,
    size: Annotated[
        int, typer.Option("--size", min=1, max=4096, help="Side of the network input, pixels.")
    ] = 224,
    fit: Annotated[
        str, typer.Option("--fit", help="Resizing to that size as in recipes: squeeze, crop or pad.")
    ] = "squeeze",
    maskige: Annotated[
        str | None, typer.Option("--maskige", help="Source of maskiges, such as felzenszwalb or published.")
    ] = None,
    audio: Annotated[
        bool,
        typer.Option(
            help="Cache audio too: VGGish embeddings if its weights are in the store, else log-mels."
        ),
    ] = True,
    json: JsonOption = False,
) -> None:
    """Decode frames, masks, maskiges and audio once, so that runs read them from memory-mapped files.

    Training and prediction do this when they first need the clips; this command does it in advance, for
    example on a machine without a GPU. Cached clips are not decoded again. See also `avsb cache`.

    \b
    Examples:
      avsb data cache AVSBench --task s4
      avsb data cache AVSBench --task ms3 --split train --size 384 --fit pad
      avsb data cache AVSBench --task ms3 --maskige felzenszwalb
    """
    from avsbench_harness.data.avsbench.layout import open_dataset
    from avsbench_harness.engine.fill_cache import (
        AudioCacheResult,
        ClipCacheResult,
        cache_audio,
        cache_clips,
    )
    from avsbench_harness.engine.interrupt import stop_request
    from avsbench_harness.tasks import SPLITS, get_split, get_task

    dataset = open_dataset(_root(root), get_task(task))
    splits = [get_split(name) for name in split] if split else list(SPLITS)
    results: list[tuple[ClipCacheResult, AudioCacheResult | None]] = []
    with stop_request() as stop:
        for part in splits:
            if dataset.counts()[part]:
                decoded = cache_clips(dataset, part, size, fit, maskige, stop)
                results.append((decoded, cache_audio(dataset, part, stop) if audio else None))
    if json:
        print_json([{**clips.to_json(), "audio": sounds and sounds.to_json()} for clips, sounds in results])
        return
    for clips, sounds in results:
        typer.echo(clips.sentence)
        if sounds is not None:
            typer.echo(sounds.sentence)


@app.command()
def solution(
    task: RequiredTaskOption,
    out: Annotated[Path, typer.Option("--out", help="The npz file to write.")],
    root: RootArgument = None,
    split: Annotated[str, typer.Option("--split", help="test or val.")] = "test",
    private: Annotated[
        float, typer.Option("--private", help="Fraction of the clips whose scores the host keeps private.")
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the choice of private clips.")] = 0,
    json: JsonOption = False,
) -> None:
    """Pack a split's ground truth into one file, so that scoring needs no data root.

    \b
    Examples:
      avsb data solution AVSBench --task s4 --out s4-test.npz
      avsb data solution AVSBench --task ms3 --split val --private 0.5 --out ms3-val.npz
    """
    from avsbench_harness.data.avsbench.layout import open_dataset
    from avsbench_harness.engine.solutions import pack_solution
    from avsbench_harness.tasks import get_split, get_task

    dataset = open_dataset(_root(root), get_task(task))
    fingerprint = pack_solution(dataset, get_split(split), out, private=private, seed=seed)
    if json:
        print_json({"solution": str(out), "fingerprint": fingerprint, "synthetic": dataset.synthetic})
    else:
        typer.echo(f"solution: {out} (fingerprint {fingerprint[:12]})")
