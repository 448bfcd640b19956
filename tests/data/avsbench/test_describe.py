"""The output of `avsb data info`."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from avsbench_harness.data.avsbench.describe import SplitInfo, describe_dataset, render_description
from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.errors import MissingDataError
from avsbench_harness.tasks import AVSS, S4


def test_every_task_is_described(tree):
    top = tree.s4()
    tree.avss()
    tree.synthetic("s4", [2, 1, 1], "Single-source")
    s4, avss = describe_dataset(tree.root)
    assert (s4.task, s4.name, s4.synthetic, s4.folder) == ("s4", "synthetic", True, str(top))
    assert s4.table == str(top / "s4_meta_data.csv")
    dataset = open_dataset(tree.root, S4)
    assert s4.fingerprint == dataset.fingerprint()
    assert s4.splits["train"] == SplitInfo(2, 10, 2, dataset.fingerprints()["train"])
    assert s4.splits["test"] == SplitInfo(1, 5, 5, dataset.fingerprints()["test"])
    assert (avss.name, avss.synthetic) == ("custom", False)
    assert (avss.splits["train"].frames, avss.splits["train"].annotated) == (20, 16)
    assert describe_dataset(tree.root, [AVSS]) == [avss]
    assert json.loads(json.dumps(s4.to_json()))["splits"]["val"]["clips"] == 1


def test_text_marks_synthetic_data(tree):
    tree.ms3()
    tree.synthetic("ms3", [1, 1, 1])
    infos = describe_dataset(tree.root)
    console = Console(file=io.StringIO(), width=120)
    console.print(render_description(infos))
    text = console.file.getvalue()
    assert text.count("SYNTHETIC") == 3
    assert infos[0].splits["val"].fingerprint[:12] in text


def test_a_root_without_tasks(tree):
    with pytest.raises(MissingDataError, match=r"contains none of the tasks s4, ms3, avss.*avsb data check"):
        describe_dataset(tree.root)
    with pytest.raises(MissingDataError, match=r"contains no AVSS"):
        describe_dataset(tree.root, [AVSS])
