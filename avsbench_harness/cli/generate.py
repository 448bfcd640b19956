"""``avsb data synth``, ``mini`` and ``compose``: data sets in the official layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avsbench_harness.cli.common import JobsOption, JsonOption, RequiredTaskOption, print_json
from avsbench_harness.errors import UsageError

if TYPE_CHECKING:
    from avsbench_harness.tasks import Task

OutOption = Annotated[Path, typer.Option("--out", help="Folder to write; it must not exist or be empty.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Random seed.")]
TasksOption = Annotated[str, typer.Option("--task", help="s4, ms3, avss or all.")]


def synth(
    task: RequiredTaskOption,
    clips: Annotated[str, typer.Option("--clips", metavar="TRAIN,VAL,TEST", help="Clips per split.")],
    out: OutOption,
    seed: SeedOption = 0,
    kinds: Annotated[
        int | None, typer.Option("--kinds", help="Number of kinds of objects; default: all.")
    ] = None,
    jobs: JobsOption = None,
    json: JsonOption = False,
) -> None:
    """Generate a synthetic benchmark in the official layout.

    Clips show several objects, some of which sound; only the recording reveals which. All scores on it are
    marked as synthetic.

    \b
    Examples:
      avsb data synth --task s4 --clips 200,40,40 --out synthetic --seed 1
      avsb data synth --task avss --clips 60,20,20 --out synthetic-avss
    """
    from avsbench_harness.data.avsbench.layout import open_dataset
    from avsbench_harness.data.synth import write_synthetic
    from avsbench_harness.tasks import get_task

    chosen, counts = get_task(task), _counts(clips)
    with _progress("synthetic clips", sum(counts)) as progress:
        write_synthetic(out, chosen, counts, seed, kinds=kinds, jobs=jobs, progress=progress)
    made = {
        "root": str(out),
        "task": chosen.name,
        "clips": list(counts),
        "seed": seed,
        "synthetic": True,
        "fingerprint": open_dataset(out, chosen).fingerprint(),
    }
    if json:
        print_json(made)
    else:
        typer.echo(f"{sum(counts)} synthetic {chosen.name} clips in {out}; use it with --data {out}")


def mini(
    out: OutOption,
    task: TasksOption = "all",
    clips: Annotated[
        str | None,
        typer.Option("--clips", metavar="TRAIN,VAL,TEST", help="Clips per split; default: 480,80,160."),
    ] = None,
    seed: SeedOption = 0,
    jobs: JobsOption = None,
    json: JsonOption = False,
) -> None:
    """Compose AVS-Mini, a small benchmark of real recordings and drawn objects.

    The recordings and drawings are part of the package. Objects of several kinds move over photographs and
    textures; only the recording reveals which of them sound. Recordings, drawings and photographs of a split
    occur in no other split. Other numbers of clips or another seed make another data set, whose scores are
    not comparable.

    \b
    Examples:
      avsb data mini --out avs-mini
      avsb data mini --task ms3 --out avs-mini-ms3
    """
    from avsbench_harness.data.mini import write_mini
    from avsbench_harness.data.mini.write import CLIPS

    tasks, counts = _tasks(task), CLIPS if clips is None else _counts(clips)
    with _progress("clips", len(tasks) * sum(counts)) as progress:
        write_mini(out, tasks, counts, seed, jobs=jobs, progress=progress)
    _report(out, tasks, json)


def compose(
    pictures: Annotated[
        Path,
        typer.Option("--pictures", help="Folder with one folder of cut-out images per kind, or a table."),
    ],
    sounds: Annotated[
        Path, typer.Option("--sounds", help="Folder with one folder of recordings per kind, or a table.")
    ],
    out: OutOption,
    name: Annotated[str, typer.Option("--name", help="Name of the data set in tables.")] = "composed",
    task: TasksOption = "all",
    clips: Annotated[
        str, typer.Option("--clips", metavar="TRAIN,VAL,TEST", help="Clips per split.")
    ] = "480,80,160",
    seed: SeedOption = 0,
    jobs: JobsOption = None,
    json: JsonOption = False,
) -> None:
    """Compose a data set as AVS-Mini from your own cut-outs and recordings.

    Cut-outs are images with transparency; of recordings (wav, flac, ogg) the first five seconds are used. The
    files of each kind's folder are distributed to the splits at random (70, 10 and 20 percent); a table
    (csv with the columns file, kind and split) decides it instead. Kinds that are named as classes of
    AVSBench-semantic are in the masks of avss.

    \b
    Examples:
      avsb data compose --pictures cutouts --sounds recordings --out composed --name my-lab
      avsb data compose --pictures cutouts.csv --sounds sounds.csv --out composed --task ms3
    """
    from avsbench_harness.data.mini.collect import collect_media
    from avsbench_harness.data.mini.write import compose as compose_clips

    tasks, counts = _tasks(task), _counts(clips)
    media = collect_media(pictures, sounds, seed)
    with _progress("clips", len(tasks) * sum(counts)) as progress:
        compose_clips(out, tasks, media, name, counts, seed, jobs=jobs, progress=progress)
    _report(out, tasks, json)


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int, int], None]]:
    from avsbench_harness.console import counter

    with counter(what, total) as advance:
        yield lambda done, total: advance(1)


def _tasks(name: str) -> list[Task]:
    from avsbench_harness.tasks import TASKS, get_task

    return list(TASKS.values()) if name.lower() == "all" else [get_task(name)]


def _report(out: Path, tasks: list[Task], json: bool) -> None:
    from avsbench_harness.data.avsbench.layout import open_dataset

    datasets = [open_dataset(out, task) for task in tasks]
    if json:
        made: list[dict[str, Any]] = [
            {
                "root": str(out),
                "task": dataset.task.name,
                "name": dataset.name,
                "clips": list(dataset.counts().values()),
                "fingerprint": dataset.fingerprint(),
            }
            for dataset in datasets
        ]
        print_json(made)
        return
    for dataset in datasets:
        counts = dataset.counts()
        numbers = ", ".join(f"{count} {split}" for split, count in counts.items())
        typer.echo(f"{dataset.name}, {dataset.task.name}: {numbers} clips")
    typer.echo(f"written to {out}; use it with --data {out}")


def _counts(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
        raise UsageError(f"--clips needs three numbers, TRAIN,VAL,TEST, for example 200,40,40; got '{text}'.")
    train, val, test = (int(part) for part in parts)
    return train, val, test
