"""The data root: given, from the environment, or missing."""

from __future__ import annotations

import pytest

from avsbench_harness.data.avsbench.tree import data_root
from avsbench_harness.errors import MissingDataError


def test_data_root_is_given_or_from_the_environment(tmp_path, monkeypatch):
    assert data_root(None) is None
    assert data_root(tmp_path) == tmp_path
    monkeypatch.setenv("AVSB_DATA_DIR", "")
    assert data_root(None) is None
    monkeypatch.setenv("AVSB_DATA_DIR", str(tmp_path))
    assert data_root(None) == tmp_path


@pytest.mark.parametrize("kind", ["absent", "file"])
def test_a_missing_data_root_is_refused_in_one_sentence(tmp_path, monkeypatch, kind):
    root = tmp_path / "data"
    if kind == "file":
        root.write_text("")
    problem = "is not a folder" if kind == "file" else "does not exist"
    remedy = f"{problem}; pass the folder that contains AVSBench, or mini or synthetic."
    with pytest.raises(MissingDataError) as caught:
        data_root(root)
    assert str(caught.value) == f"The data folder {root} {remedy}"
    monkeypatch.setenv("AVSB_DATA_DIR", str(root))
    with pytest.raises(MissingDataError) as caught:
        data_root(None)
    assert str(caught.value) == f"The data folder {root} (AVSB_DATA_DIR) {remedy}"
