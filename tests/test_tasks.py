from __future__ import annotations

import json
from pathlib import Path

import pytest

from avsbench_harness import tasks
from avsbench_harness.errors import UsageError


def test_classes_are_those_of_the_published_table(data: Path) -> None:
    published = json.loads((data / "avsbench_meta" / "label2idx.json").read_text())
    assert {name: index + 1 for index, name in enumerate(tasks.CLASSES)} == published


def test_official_clip_counts() -> None:
    totals = {name: sum(task.clips.values()) for name, task in tasks.TASKS.items()}
    assert totals == {"s4": 4932, "ms3": 424, "avss": 11356}
    assert tasks.AVSS.channels == 71
    assert [task.semantic for task in tasks.TASKS.values()] == [False, False, True]


def test_names_are_found_and_suggested() -> None:
    assert tasks.get_task("S4") is tasks.S4
    assert tasks.get_split("Val") == "val"
    with pytest.raises(UsageError, match="Unknown task 'avs'. Did you mean 'avss'"):
        tasks.get_task("avs")
    with pytest.raises(UsageError, match="Unknown split 'tests'. Did you mean 'test'"):
        tasks.get_split("tests")
