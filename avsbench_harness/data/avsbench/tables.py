"""The tables of AVSBench: the clips, their splits and their order.

Facts from the published tables: ``s4_meta_data.csv`` (name, start, category, split), ``ms3_meta_data.csv``
(video_id, split) and AVSBench-semantic's ``metadata.csv`` (vid, uid, s_min, s_sec, a_obj, split, label). The
last one lists all clips, so the other two can be rebuilt from it except for the order of their rows. Start
times are not read: the released frames and recordings are already cut.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from avsbench_harness.data.clip import CLIP_ID_RULE, is_clip_id
from avsbench_harness.data.errors import BadFileError
from avsbench_harness.errors import MissingDataError
from avsbench_harness.tasks import SPLITS, Split

#: The parts of AVSBench-semantic: the clips of S4, those of MS3, and the new ones.
SUBSETS = ("v1s", "v1m", "v2")

#: AVSBench-semantic's name of a sounding object -> S4's folder. "h orse" is one row of the real table.
S4_CATEGORIES = {
    "baby": "baby_laughter",
    "bird": "mynah_bird_singing",
    "bus": "driving_buses",
    "car": "race_car",
    "cat": "cat_meowing",
    "dog": "dog_barking",
    "emergency-car": "ambulance_siren",
    "guitar": "playing_acoustic_guitar",
    "gun": "cap_gun_shooting",
    "h orse": "horse_clip-clop",
    "helicopter": "helicopter",
    "horse": "horse_clip-clop",
    "keyboard": "typing_on_computer_keyboard",
    "lion": "lions_roaring",
    "man": "male_speech",
    "marimba": "playing_glockenspiel",
    "mower": "lawn_mowing",
    "piano": "playing_piano",
    "saw": "chainsawing_trees",
    "tabla": "playing_tabla",
    "ukulele": "playing_ukulele",
    "violin": "playing_violin",
    "wolf": "coyote_howling",
    "woman": "female_singing",
}

# AVSBench-semantic's table has 1 MB.
_MAX_BYTES = 64 * 2**20
_MAX_TEXT = 256


@dataclass(frozen=True)
class Row:
    """One clip of a task in its table.

    Attributes:
        id: the clip's name in its task: S4 ``name``, MS3 ``video_id``, AVSS ``uid``.
        split: train, val or test.
        category: S4's category folder; AVSS's ``a_obj`` unchanged; empty in MS3.
        subset: ``v1s``, ``v1m`` or ``v2`` in AVSS, else the task's name.
    """

    id: str
    split: Split
    category: str
    subset: str


@dataclass(frozen=True)
class MetadataRow:
    """One row of AVSBench-semantic's ``metadata.csv``, without its times."""

    vid: str
    uid: str
    a_obj: str
    split: Split
    label: str


def read_s4(path: Path) -> list[Row]:
    """Read the rows of ``s4_meta_data.csv`` in their order."""
    return _distinct(
        path,
        [
            Row(row.name("name"), row.split(), row.name("category"), "s4")
            for row in _records(path, ("name", "category", "split"))
        ],
    )


def read_ms3(path: Path) -> list[Row]:
    """Read the rows of ``ms3_meta_data.csv`` in their order."""
    rows = [
        Row(row.name("video_id"), row.split(), "", "ms3") for row in _records(path, ("video_id", "split"))
    ]
    return _distinct(path, rows)


def read_metadata(path: Path) -> list[MetadataRow]:
    """Read the rows of AVSBench-semantic's ``metadata.csv`` in their order."""
    return [
        MetadataRow(row.name("vid"), row.name("uid"), row.text("a_obj"), row.split(), row.subset("label"))
        for row in _records(path, ("vid", "uid", "a_obj", "split", "label"))
    ]


def read_avss(path: Path) -> list[Row]:
    """Read the clips of AVSS from ``metadata.csv`` in its order; ``uid`` is unique across the subsets."""
    return _distinct(path, [Row(row.uid, row.split, row.a_obj, row.label) for row in read_metadata(path)])


def rebuild_s4(path: Path) -> list[Row]:
    """Rebuild S4's table from the ``v1s`` rows of ``metadata.csv``: the same clips, in another order."""
    rows = [row for row in read_metadata(path) if row.label == "v1s"]
    for row in rows:
        if row.a_obj not in S4_CATEGORIES:
            categories = len(set(S4_CATEGORIES.values()))
            raise BadFileError(
                path,
                f"gives clip {row.uid} the sounding object {row.a_obj[:80]!r}, which is none of"
                f" S4's {categories} categories, so S4's table cannot be rebuilt from it",
            )
    return _distinct(path, [Row(row.vid, row.split, S4_CATEGORIES[row.a_obj], "s4") for row in rows])


def rebuild_ms3(path: Path) -> list[Row]:
    """Rebuild MS3's table from the ``v1m`` rows of ``metadata.csv``: the same clips, in another order."""
    rows = [row for row in read_metadata(path) if row.label == "v1m"]
    return _distinct(path, [Row(row.uid, row.split, "", "ms3") for row in rows])


def read_media(path: Path) -> list[tuple[str, str, Split]]:
    """Read a table of media: (file, kind, split) of each row; the file is a name below the table's folder."""
    found = []
    for row in _records(path, ("file", "kind", "split")):
        file = row.text("file")
        if not file or Path(file).is_absolute() or ".." in Path(file).parts:
            raise row.bad("file", "is no path below the table's folder")
        found.append((file, row.name("kind"), row.split()))
    return found


@dataclass(frozen=True)
class _Record:
    """The cells of one line and their position, for error messages."""

    path: Path
    line: int
    cells: dict[str, str]

    def text(self, column: str) -> str:
        """A cell that is shown, but not part of a path."""
        value = self.cells[column]
        if len(value) > _MAX_TEXT or not value.isprintable():
            raise self.bad(column, f"is no text of up to {_MAX_TEXT} printable characters")
        return value

    def name(self, column: str) -> str:
        """A cell that names a clip or a category, and becomes part of a path."""
        value = self.cells[column]
        if not is_clip_id(value):
            raise self.bad(column, f"cannot be the name of a file; names have {CLIP_ID_RULE}")
        return value

    def split(self) -> Split:
        for split in SPLITS:
            if self.cells["split"] == split:
                return split
        raise self.bad("split", f"is none of {', '.join(SPLITS)}")

    def subset(self, column: str) -> str:
        if self.cells[column] not in SUBSETS:
            raise self.bad(column, f"is none of {', '.join(SUBSETS)}")
        return self.cells[column]

    def bad(self, column: str, fault: str) -> BadFileError:
        """The error for a cell."""
        return BadFileError(
            self.path, f"has in line {self.line} the {column} {self.cells[column][:80]!r}, which {fault}"
        )


def _records(path: Path, columns: Sequence[str]) -> Iterator[_Record]:
    """The lines of a csv file with at least these columns; blank lines are skipped.

    The cells are separated by commas, semicolons or tabs, whichever the first line has most of.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BadFileError(path, f"has over {_MAX_BYTES >> 20} MiB, which no table of clips has")
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count))
            names = [name.strip() for name in next(reader, [])]
            places = {column: _place(path, names, column, columns) for column in columns}
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) <= max(places.values()):
                    raise BadFileError(path, f"has in line {reader.line_num} a truncated row")
                values = {column: cells[place].strip() for column, place in places.items()}
                yield _Record(path, reader.line_num, values)
    except FileNotFoundError as error:
        raise MissingDataError(f"There is no table {path}.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadFileError(path, f"cannot be read as a table ({error})") from error


def _place(path: Path, names: Sequence[str], column: str, columns: Sequence[str]) -> int:
    """The position of a column among the names of the first line."""
    absent = [wanted for wanted in columns if wanted not in names]
    if absent:
        raise BadFileError(
            path,
            f"has no column {' and no column '.join(absent)}; its first line must name {', '.join(columns)}",
        )
    if names.count(column) > 1:
        raise BadFileError(path, f"has the column {column} twice; remove one of them")
    return names.index(column)


def _distinct(path: Path, rows: Iterable[Row]) -> list[Row]:
    """The rows, after checking that every id is unique."""
    seen: dict[str, Row] = {}
    for row in rows:
        if row.id in seen:
            raise BadFileError(path, f"names the clip {row.id} twice; remove one of the two rows")
        seen[row.id] = row
    return list(seen.values())
