"""``avsb segment``: a trained model on videos of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from avsbench_harness.cli.common import DeviceOption, JsonOption, print_json, print_rich

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.text import Text

    from avsbench_harness.errors import AvsbError
    from avsbench_harness.launch.segment import Segmentation, SegmentedFrame


VideosArgument: TypeAlias = Annotated[
    list[Path], typer.Argument(metavar="VIDEO...", help="Files that FFmpeg reads.")
]
ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--with",
        metavar="MODEL",
        help="A run: its id, a unique prefix of it, its folder or its weights file; published weights; or "
        "METHOD:BACKBONE.",
    ),
]
TaskOption: TypeAlias = Annotated[
    str | None, typer.Option("--task", help="s4, ms3 or avss, if MODEL exists for several tasks.")
]
OverlayFileOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Overlay video (.mp4, .mov, .mkv, .webm) or a folder; defaults to NAME-segmented.mp4 here.",
    ),
]
FpsOption: TypeAlias = Annotated[int, typer.Option("--fps", help="Predictions per second.")]
OverlapOption: TypeAlias = Annotated[
    int, typer.Option("--overlap", help="Overlap of consecutive windows, seconds.")
]
ThresholdOption: TypeAlias = Annotated[
    float | None, typer.Option("--threshold", help="Probability of foreground (s4, ms3); defaults to 0.5.")
]
MasksOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--masks", help="Folder for PNG masks in the layout of AVSBench, and COCO JSON."),
]
OverlayOption: TypeAlias = Annotated[
    bool, typer.Option("--overlay/--no-overlay", help="Write the overlay video.")
]
CrfOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--crf", help="Quality of the overlay, lower is better; 0 keeps every pixel (RGB)."),
]
RunsOption: TypeAlias = Annotated[Path, typer.Option("--runs", help="Folder that holds runs/.")]
MethodFolderOption: TypeAlias = Annotated[
    str | None, typer.Option("--method", help="Folder of the method, if it is not installed.")
]


def segment(
    videos: VideosArgument,
    model: ModelOption = None,
    task: TaskOption = None,
    out: OverlayFileOption = None,
    fps: FpsOption = 1,
    overlap: OverlapOption = 0,
    threshold: ThresholdOption = None,
    masks: MasksOption = None,
    overlay: OverlayOption = True,
    crf: CrfOption = None,
    runs: RunsOption = Path(),
    method: MethodFolderOption = None,
    device: DeviceOption = None,
    json: JsonOption = False,
) -> None:
    """Segment the sounding objects in videos with a trained model.

    Writes the video with tinted objects, their outlines, the original sound, and a strip with labels and
    waveform. The video is cut into windows of 5 s (avss: 10 s); the last one is padded, and its predictions
    are marked. Rerun the same command to resume an interrupted one. A video that fails does not stop the
    others; the exit code is that of the first failure.

    There are no general-purpose weights: train a model (`avsb run`, `avsb demo`) or import published weights
    (`avsb weights import`). Reading videos needs PyAV: pip install "avsbench-harness[video]".

    \b
    Examples:
      avsb segment concert.mp4 --with RUN-ID
      avsb segment *.mp4 --with avsegformer:pvt --task avss --out overlays
      avsb segment concert.mov --with RUN-ID --fps 2 --masks masks --json
    """
    from avsbench_harness.errors import MissingDataError
    from avsbench_harness.launch.load_model import available, load
    from avsbench_harness.launch.segment import SegmentOptions, output_files, segment_all
    from avsbench_harness.video.media import import_av

    if model is None:
        raise MissingDataError(f"Pass a trained model by --with. {available(runs)}")
    import_av()
    files = output_files(videos, out)
    predictor = load(model, task=task, out=runs, method=method, device=device)
    results: list[Segmentation] = []

    def done(result: Segmentation) -> None:
        results.append(result)
        if not json:
            _show(result)

    options = SegmentOptions(fps, overlap, threshold, crf, overlay, masks)
    failures = segment_all(predictor, files, options, done)
    if len(videos) == 1 and failures:
        raise next(iter(failures.values()))
    if json:
        print_json([*(result.to_json() for result in results), *_failed(failures)])
    else:
        for error in failures.values():
            typer.echo(f"error: {error}", err=True)
    if failures:
        raise typer.Exit(next(iter(failures.values())).exit_code)


def _failed(failures: dict[Path, AvsbError]) -> list[dict[str, Any]]:
    return [
        {"video": str(video), "error": str(error), "exit_code": error.exit_code}
        for video, error in failures.items()
    ]


def _show(result: Segmentation) -> None:
    """Print the labels over time and the files."""
    typer.echo(f"{result.video}: {result.seconds:.1f} s, {result.windows} windows, {result.model}")
    for start, end, frame in _runs(result.predictions):
        print_rich(_line(start, end, frame))
    if result.padded:
        typer.echo(f"* {result.padded} of {result.windows} windows are padded at the end of the video")
    for note in result.notes:
        typer.echo(f"note: {note}")
    if result.overlay is not None:
        typer.echo(f"overlay: {result.overlay}")
    if result.masks is not None:
        typer.echo(f"masks: {result.masks}")


def _line(start: float, end: float, frame: SegmentedFrame) -> Text:
    """An interval and its labels, each behind a square of its colour."""
    from rich.text import Text

    text = Text(f"  {start:7.2f} to {end:7.2f} s{'*' if frame.padded else ' '} ")
    for one in frame.objects:
        text.append(" ■ ", style=one.colour)
        text.append(one.name)
    if not frame.objects:
        text.append(" nothing")
    return text


def _runs(frames: Sequence[SegmentedFrame]) -> Iterator[tuple[float, float, SegmentedFrame]]:
    """Consecutive predictions with the same labels as one: start, end and the first prediction."""
    from itertools import groupby

    for _, group in groupby(frames, lambda frame: (frame.padded, [one.label for one in frame.objects])):
        members = list(group)
        yield members[0].start, members[-1].end, members[0]
