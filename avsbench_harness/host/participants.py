"""The bundle of participants: clips, the labels of train and val, a sample submission, rules and a guide.

Files are copied from lists of clips, never by folder, so that whatever else a data set holds (masks of the
scored split, objects of composed clips, tables with classes) stays with the host. The class of the scored
split's clips is left out of tables and paths.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

from avsbench_harness.data.avsbench.layout import Dataset, table_name
from avsbench_harness.data.avsbench.unlabelled import FINGERPRINTS
from avsbench_harness.data.avsbench.writer import new_folder
from avsbench_harness.data.clip import Clip
from avsbench_harness.files import write_json, write_text
from avsbench_harness.host.challenge import Challenge
from avsbench_harness.host.definition import Definition
from avsbench_harness.host.ground_truth import dataset_of
from avsbench_harness.host.texts import format_text, quick_start, rules_text
from avsbench_harness.submission import read_solution
from avsbench_harness.tasks import SPLITS, Split

#: Category of the clips of the scored split, whose class is not published.
HIDDEN_CATEGORY = "withheld"


def write_participants(challenge: Challenge, out: Path) -> int:
    """Write the bundle of participants into a new folder; return the number of clips.

    Raises:
        UsageError: ``out`` is not empty.
        MissingDataError: a file of the data set is missing.
    """
    definition, dataset = challenge.definition, dataset_of(challenge.definition)
    with read_solution(challenge.solution_of(1)) as solution:
        fingerprint, clips = solution.fingerprint, len(solution.shapes)
    with new_folder(out) as root:
        count = _copy_clips(definition, dataset, root / "data")
        write_json(root / "data" / FINGERPRINTS, {definition.task: {definition.split: fingerprint}})
        if dataset.synthetic:
            write_json(root / "data" / "synthetic.json", {"synthetic": True})
        shutil.copyfile(challenge.sample, root / "sample_submission.npz")
        write_json(root / "challenge.json", {**definition.published(), "solution": fingerprint})
        write_text(root / "README.md", quick_start(definition, fingerprint))
        write_text(root / "RULES.md", rules_text(definition))
        write_text(root / "FORMAT.md", format_text(definition, fingerprint, clips))
    return count


def _copy_clips(definition: Definition, dataset: Dataset, root: Path) -> int:
    folder = root / dataset.folder.name
    rows: list[tuple[Clip, Split]] = []
    for split in SPLITS:
        clips = dataset.clips(split)
        hidden = split == definition.split
        if hidden:
            clips = sorted(clips, key=lambda clip: clip.id)
        for clip in clips:
            for path in _files_of(clip, masks=not hidden):
                relative = path.relative_to(dataset.folder)
                target = folder / (_without_category(relative, dataset) if hidden else relative)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
            rows.append((clip, split))
    write_text(folder / table_name(dataset.task), _table(definition, rows))
    return len(rows)


def _files_of(clip: Clip, *, masks: bool) -> Iterator[Path]:
    yield from clip.frames
    if masks:
        yield from (path for path in clip.masks if path is not None)
    sound = clip.audio if clip.audio is not None else clip.logmel
    if sound is not None:
        yield sound


def _without_category(relative: Path, dataset: Dataset) -> Path:
    """A path in which S4's folder of the category has another name."""
    if dataset.task.name != "s4":
        return relative
    data, kind, split, _, *rest = relative.parts
    return Path(data, kind, split, HIDDEN_CATEGORY, *rest)


def _table(definition: Definition, rows: list[tuple[Clip, Split]]) -> str:
    """The table of the task; the scored split has no classes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if definition.task == "s4":
        writer.writerow(("name", "category", "split"))
    elif definition.task == "ms3":
        writer.writerow(("video_id", "split"))
    else:
        writer.writerow(("vid", "uid", "a_obj", "split", "label"))
    for clip, split in rows:
        category = HIDDEN_CATEGORY if split == definition.split else clip.category
        if definition.task == "s4":
            writer.writerow((clip.id, category, split))
        elif definition.task == "ms3":
            writer.writerow((clip.id, split))
        else:
            writer.writerow((clip.id, clip.id, category, split, clip.subset))
    return text.getvalue()
