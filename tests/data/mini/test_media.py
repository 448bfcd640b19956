"""The media of the package: tables, licences and splits."""

from __future__ import annotations

import csv

import pytest

from avsbench_harness.data.mini.media import FOLDER, FOLDS, class_index, mini_media
from avsbench_harness.tasks import CLASSES, SPLITS


def table(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("folder", "name", "licences"),
    [
        ("sounds", "sounds.csv", {"CC0", "CC-BY"}),
        ("pictures", "pictures.csv", {"CC-BY-4.0", "Apache-2.0", "MIT"}),
    ],
)
def test_every_file_has_an_author_and_a_licence(folder: str, name: str, licences: set[str]) -> None:
    rows = table(name)
    assert {f"{row['kind']}/{row['file']}" for row in rows} == {
        path.relative_to(FOLDER / folder).as_posix()
        for path in (FOLDER / folder).rglob("*")
        if path.is_file()
    }
    assert {row["licence"] for row in rows} == licences
    assert all(row["author"] for row in rows)


def test_no_recording_source_and_no_drawing_is_in_two_splits() -> None:
    rows = table("sounds.csv")
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["source"], set()).add(FOLDS[row["fold"]])
    assert all(len(found) == 1 for found in splits.values())
    media = mini_media()
    for kind in ("pictures", "recordings"):
        paths = [one.path for split in SPLITS for one in getattr(media, kind)[split]]
        assert (
            len(paths)
            == len(set(paths))
            == len(table("sounds.csv" if kind == "recordings" else "pictures.csv"))
        )


def test_all_splits_have_most_kinds() -> None:
    media = mini_media()
    everything = {row["kind"] for row in table("sounds.csv")}
    assert len(everything) == 10
    assert set(media.kinds("train")) == set(media.kinds("test")) == everything
    assert everything - set(media.kinds("val")) == {"saw", "sneeze"}  # which fxemoji has no drawing of


def test_six_kinds_have_a_class() -> None:
    found = {kind: class_index(kind) for kind in mini_media().kinds("train")}
    named = {kind: CLASSES[index] for kind, index in found.items() if index is not None}
    assert named == {
        "dog": "dog", "baby": "baby", "clock": "clock", "helicopter": "helicopter", "rooster": "hen",
        "saw": "saw",
    }  # fmt: skip
    assert class_index("background") is None
