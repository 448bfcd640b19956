"""Composes a benchmark and writes it in the official layout of its task."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avsbench_harness.data.avsbench.composed import DESCRIPTION, NAME_RULE, is_name
from avsbench_harness.data.avsbench.writer import (
    Bytes,
    GeneratedClip,
    Progress,
    new_folder,
    write_clips,
    write_png,
)
from avsbench_harness.data.mini.media import Media, class_index, mini_media
from avsbench_harness.data.mini.scene import Scene, Style
from avsbench_harness.data.mini.sound import Voice, draw_voices, mix
from avsbench_harness.data.synth.draws import Draws
from avsbench_harness.errors import UsageError, one_line
from avsbench_harness.files import read_json, write_json, write_text
from avsbench_harness.tasks import CLASSES, SPLITS, Split, Task

#: Name of the data set that is composed of the package's media, in front of its version.
NAME = "AVS-Mini"
#: Changes whenever a pixel or a sample of the same arguments changes.
VERSION = 1
#: Clips of AVS-Mini per split, for each task.
CLIPS = (480, 80, 160)

_STYLES = {
    "s4": Style("s4", seconds=5, changing=False),
    "ms3": Style("ms3", seconds=5, changing=True),
    "v1s": Style("v1s", seconds=5, changing=False, classes=True),
    "v1m": Style("v1m", seconds=5, changing=True, classes=True),
    "v2": Style("v2", seconds=10, changing=True, classes=True),
}
# Subsets of the AVSS clips, cyclically.
_SUBSETS = ("v1s", "v2", "v1m", "v2")


@dataclass(frozen=True)
class _Item:
    """One clip to write, as sent to a worker."""

    split: Split
    index: int


@dataclass(frozen=True)
class _Composer:
    """Makes the clips of a task.

    Attributes:
        root: the data root; objects and descriptions are written to ``objects`` in it.
        task: the task.
        media: the media.
        seed: the benchmark's seed.
    """

    root: Path
    task: Task
    media: Media
    seed: int

    def __call__(self, item: _Item) -> GeneratedClip:
        subset = _SUBSETS[item.index % len(_SUBSETS)] if self.task.semantic else ""
        style = _STYLES[subset or self.task.name]

        def draws(part: str) -> Draws:
            return Draws(self.seed, f"mini/{style.name}/{item.split}/{part}", item.index)

        scene = Scene(style, self.media, item.split, draws("plan"), draws("paint"))
        kinds = [one.kind for one in scene.objects]
        classes = [class_index(kind) if style.classes else 1 for kind in kinds]
        voices = draw_voices(
            style, kinds, [label is not None for label in classes], self.media, item.split, draws("sound")
        )
        sounding = [voice.object for voice in voices if classes[voice.object] is not None]
        clip = GeneratedClip(
            id=f"mix{item.split[:2]}{item.index:06d}",
            split=item.split,
            frames=scene.frames,
            labels=_labels(style, scene.owners, classes, voices),
            samples=mix(voices),
            category=kinds[sounding[0]],
            classes=tuple(CLASSES[label] for label in sorted({classes[i] or 0 for i in sounding}))
            if style.classes
            else (),
            subset=subset,
        )
        self._describe(clip, scene, voices)
        return clip

    def _describe(self, clip: GeneratedClip, scene: Scene, voices: list[Voice]) -> None:
        """Write the masks of all objects and what the clip is composed of."""
        place = self.root / "objects" / self.task.name / clip.split / clip.id
        write_png(place.with_suffix(".png"), scene.owners.reshape(-1, scene.owners.shape[-1]))
        digest = hashlib.sha256()
        for array in (clip.frames, clip.labels, clip.samples.astype("<i2")):
            digest.update(np.ascontiguousarray(array).tobytes())
        description = {
            "sha256": digest.hexdigest(),
            "objects": [{"kind": one.kind, "picture": one.path.name} for one in scene.objects],
            "sounds": [
                {
                    "object": voice.object,
                    "recordings": [recording.path.name for recording in voice.recordings],
                    "level": voice.level / 10,
                    "playing": voice.playing.tolist(),
                    "audible": voice.audible.tolist(),
                }
                for voice in voices
            ],
        }
        # Not synchronised to the disk one by one: the folder is renamed when it is complete.
        text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        place.with_suffix(".json").write_text(text, encoding="utf-8")


def _labels(style: Style, owners: Bytes, classes: list[int | None], voices: list[Voice]) -> Bytes:
    """(T,SIZE,SIZE) classes of sounding objects; without ``changing`` the object is in all masks."""
    labels = np.zeros(owners.shape, dtype=np.uint8)
    for voice in voices:
        label = classes[voice.object]
        if label is not None:
            seconds = voice.audible if style.changing else voice.playing
            labels[(owners == voice.object + 1) & seconds[:, None, None]] = label
    return labels


def write_mini(
    out: Path,
    tasks: list[Task],
    clips: tuple[int, int, int] = CLIPS,
    seed: int = 0,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Compose AVS-Mini from the media of the package.

    Pixels and samples depend only on the task, the seed and ``VERSION``; more clips are appended to each
    split. Other numbers of clips or another seed make a ``variant``, whose scores are not comparable. See
    :func:`compose` for the arguments and errors.
    """
    variant = "" if (clips, seed) == (CLIPS, 0) else " variant"
    _compose(out, tasks, mini_media(), f"{NAME} v{VERSION}{variant}", clips, seed, jobs, progress)


def compose(
    out: Path,
    tasks: list[Task],
    media: Media,
    name: str,
    clips: tuple[int, int, int],
    seed: int,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Compose a benchmark in the official layouts, atomically.

    Args:
        out: the folder to write, a data root; it must not exist or be empty.
        tasks: the tasks.
        media: cut-outs and recordings.
        name: name of the data set.
        clips: numbers of training, validation and test clips of each task.
        seed: 0 .. 2**64 - 1.
        jobs: worker processes; by default one per core.
        progress: called with (clips written, total clips).

    Raises:
        UsageError: ``out`` is not empty, a number is out of range, or the media are not sufficient.
        BadFileError: a picture or a recording cannot be read.
        AvsbError: the disk is full or cannot be written, or a worker process died.
    """
    if not is_name(name) or name.lower().startswith(NAME.lower()):
        raise UsageError(
            f"A composed data set cannot be named {one_line(name, 60)!r}; allowed are {NAME_RULE}."
        )
    _compose(out, tasks, media, name, clips, seed, jobs, progress)


def _compose(
    out: Path,
    tasks: list[Task],
    media: Media,
    name: str,
    clips: tuple[int, int, int],
    seed: int,
    jobs: int | None,
    progress: Progress | None,
) -> None:
    jobs = (os.cpu_count() or 1) if jobs is None else jobs
    _check(tasks, media, clips, seed, jobs)
    items = [
        _Item(split, index) for split, count in zip(SPLITS, clips, strict=True) for index in range(count)
    ]
    total = len(items) * len(tasks)
    with new_folder(out) as root:
        for number, task in enumerate(tasks):
            before = number * len(items)

            def report(done: int, _: int, before: int = before) -> None:
                if progress is not None:
                    progress(before + done, total)

            write_clips(root, task, _Composer(root, task, media, seed), items, jobs, report)
        _write_description(root, tasks, name, clips, seed)


def _check(tasks: list[Task], media: Media, clips: tuple[int, int, int], seed: int, jobs: int) -> None:
    if min(clips) < 0 or sum(clips) == 0 or max(clips) > 999_999:
        raise UsageError(f"clips are three numbers, TRAIN,VAL,TEST, such as 40,10,10; got {clips}.")
    if not 0 <= seed < 2**64:
        raise UsageError(f"The seed must lie between 0 and 2**64 - 1; got {seed}.")
    if jobs < 1:
        raise UsageError(f"jobs is a number of processes, at least 1; got {jobs}.")
    for split, count in zip(SPLITS, clips, strict=True):
        kinds = media.kinds(split)
        if count and len(kinds) < 2:
            raise UsageError(
                f"{split} has pictures and recordings of {len(kinds)} kinds; two are needed, so that "
                "the recording decides which object is masked."
            )
        named = [kind for kind in kinds if class_index(kind) is not None]
        if count and len(named) < 2 and any(task.semantic for task in tasks):
            raise UsageError(
                f"{split} has {len(named)} kinds that are classes of AVSBench-semantic; avss needs two. "
                "Leave the task out, or name the kinds as the classes are named."
            )


def _write_description(
    root: Path, tasks: list[Task], name: str, clips: tuple[int, int, int], seed: int
) -> None:
    """Write the description of the data set, which is part of its fingerprint."""
    content: dict[str, Any] = {}
    for task in tasks:
        folder = root / "objects" / task.name
        content[task.name] = {}
        for split in SPLITS:
            digest = hashlib.sha256()
            for path in sorted((folder / split).glob("*.json")):
                digest.update(f"{path.stem} {read_json(path)['sha256']}\n".encode())
            content[task.name][split] = digest.hexdigest()
    write_json(
        root / DESCRIPTION,
        {
            "format": 1,
            "name": name,
            "version": VERSION,
            "seed": seed,
            "clips": dict(zip(SPLITS, clips, strict=True)),
            "content": content,
        },
    )
    write_text(root / "README.md", _NOTE.format(name=name, seed=seed))


_NOTE = """# {name}

This folder is **not** AVSBench. It is composed of recordings and cut-out pictures, in AVSBench's layout, by
avsbench-harness (seed {seed}). Objects of two or more kinds move over photographs and textures; which of them
sound is drawn independently of the picture, and only sounding objects are in the masks.

- s4: one object sounds; it is masked in all frames.
- ms3: one or two objects sound in changing seconds. A second whose level is more than 20 dB below the
  loudest second of its recording counts as silent, and the object is not masked in it.
- avss: as s4 (v1s) and ms3 (v1m, v2), with the classes of AVSBench. Kinds without a class are visible, and
  may sound, as background.

`objects/` contains the masks of all objects (the frames one below the other; 0 is the background), and the
pictures, recordings and levels of each clip. Scores are not comparable with scores on AVSBench.
"""
