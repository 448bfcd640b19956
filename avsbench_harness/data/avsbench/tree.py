"""The directory tree of each task under a data root: the expected trees, and the folders that are found."""

from __future__ import annotations

import os
from pathlib import Path

from avsbench_harness.errors import MissingDataError
from avsbench_harness.tasks import TASKS, Task

#: The official layout of each task, for messages.
EXPECTED = {
    "s4": """\
Single-source/
  s4_meta_data.csv or metadata.csv
  s4_data/
    visual_frames/<split>/
      <category>/<name>/
        <name>_<1..5>.png (224x224)
    gt_masks/<split>/
      <category>/<name>/
        <name>_<1..5>.png
        (in train only _1)
    audio_wav/<split>/<category>/
      <name>.wav, .flac or .ogg
    audio_log_mel/<split>/
      <category>/<name>.pkl
      (optional)""",
    "ms3": """\
Multi-sources/
  ms3_meta_data.csv or metadata.csv
  ms3_data/
    visual_frames/<id>/
      <id>.mp4_<1..5>.png (224x224)
    gt_masks/<split>/<id>/
      <id>_<1..5>.png (224x224)
    audio_wav/<split>/
      <id>.wav, .flac or .ogg
    audio_log_mel/<split>/
      <id>.pkl (optional)""",
    "avss": """\
AVSBench_semantic/
  metadata.csv
  <v1s, v1m, v2>/<uid>/
    frames/<0..4 or 9>.jpg
    labels_rgb/<0..4 or 9>.png
    or labels_semantic/<0..4 or 9>.png
    (in train of v1s only 0)
    audio.wav, .flac or .ogg""",
}

# The task's folder under a data root, in order of preference: as released, as COMBO has it, as
# AVSegFormer and AVS have it. The folder itself may be given as root too.
_FOLDERS = {
    "s4": ("Single-source", "AVSBench_object/Single-source"),
    "ms3": ("Multi-sources", "AVSBench_object/Multi-sources"),
    "avss": ("AVSBench_semantic", "AVSS", "avs_released"),
}
# A folder belongs to a task if it contains one of these. metadata.csv may only serve to rebuild tables.
_MARKS = {
    "s4": ("s4_meta_data.csv", "s4_data"),
    "ms3": ("ms3_meta_data.csv", "ms3_data"),
    "avss": ("v1s", "v1m", "v2"),
}
#: The environment variable that names the data root.
VARIABLE = "AVSB_DATA_DIR"
#: Names of generated data sets, which may stand for a data root; the first is the default.
GENERATED = ("mini", "synthetic")

_MARKERS_OF_SYNTHETIC = ("synthetic.json", "SYNTHETIC.md")


def data_root(given: Path | None) -> Path | None:
    """Return the given data root, else that of ``AVSB_DATA_DIR``; ``None`` if a generated data set is meant.

    Raises:
        MissingDataError: it is neither a folder nor the name of a generated data set.
    """
    root = _asked(given)
    if root is None or (str(root) in GENERATED and not root.is_dir()):
        return None
    if not root.expanduser().is_dir():
        origin = f" ({VARIABLE})" if given is None else ""
        problem = "is not a folder" if root.exists() else "does not exist"
        raise MissingDataError(
            f"The data folder {root}{origin} {problem}; pass the folder that contains AVSBench, or "
            f"{' or '.join(GENERATED)}."
        )
    return root


def generated_name(given: Path | None) -> str:
    """Return the name of the generated data set that is meant where :func:`data_root` is ``None``."""
    return str(_asked(given) or GENERATED[0])


def _asked(given: Path | None) -> Path | None:
    variable = os.environ.get(VARIABLE)
    return given if given is not None else Path(variable) if variable else None


def find_task_folder(root: Path, task: Task) -> Path | None:
    """Return the task's folder in (or at) a data root, or ``None``."""
    for folder in (*(root / name for name in _FOLDERS[task.name]), root):
        if any((folder / mark).exists() for mark in _MARKS[task.name]):
            return folder
    return None


def task_folder(root: Path, task: Task) -> Path:
    """Return the task's folder in (or at) a data root.

    Raises:
        MissingDataError: there is none; the message shows the expected tree.
    """
    if not root.is_dir():
        raise MissingDataError(f"There is no folder {root}.\n{expectation(task)}")
    folder = find_task_folder(root, task)
    if folder is None:
        raise MissingDataError(f"{root} contains no {task.title} data.\n{expectation(task)}")
    return folder


def found_tasks(root: Path) -> list[Task]:
    """Return the tasks that have a folder in (or at) a data root."""
    return [task for task in TASKS.values() if find_task_folder(root, task) is not None]


def find_metadata(root: Path, folder: Path) -> Path | None:
    """Return AVSBench-semantic's ``metadata.csv``: in a task's folder, in the root or in the AVSS folder."""
    for base in (folder, root, folder.parent):
        for path in (base / "metadata.csv", *(base / name / "metadata.csv" for name in _FOLDERS["avss"])):
            if path.is_file():
                return path
    return None


def find_synthetic_marker(root: Path, folder: Path) -> Path | None:
    """Return the file that marks data as synthetic: in the task's folder, above it, or in the root."""
    for base in (folder, folder.parent, root):
        for name in _MARKERS_OF_SYNTHETIC:
            if (base / name).is_file():
                return base / name
    return None


def expectation(task: Task) -> str:
    """Return a sentence with the expected tree, for the end of an error message."""
    tree = "\n".join("  " + line for line in EXPECTED[task.name].splitlines())
    return f"Pass the folder that contains this tree, by --data or AVSB_DATA_DIR:\n{tree}"


def found_tree(folder: Path) -> list[str]:
    """Return the content of a folder as indented lines.

    The first level lists up to 8 names. Below it, a folder with many entries is represented by one example,
    and from the third level on only the first folder is opened.
    """
    lines = [f"{folder.name}/"]
    _walk(folder, 1, lines)
    return lines


def _walk(folder: Path, level: int, lines: list[str]) -> None:
    indent = "  " * level
    try:
        with os.scandir(folder) as entries:
            listed = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError as error:
        lines.append(f"{indent}(cannot be listed: {error.strerror})")
        return
    shown = listed[:8]
    if level > 1 and len(listed) > (8 if level == 2 else 4):
        shown = [next((entry for entry in listed if entry[1]), listed[0])]
    opened = [name for name, is_folder in shown if is_folder][: None if level < 3 else 1]
    for name, is_folder in shown:
        lines.append(f"{indent}{name}{'/' if is_folder else ''}")
        if name in opened and level < 7:  # as deep as S4 goes
            _walk(folder / name, level + 1, lines)
    if len(listed) > len(shown):
        lines.append(f"{indent}... {len(listed) - len(shown):,} more")
