"""Changes of the code and of the number of threads between two attempts at a run are logged."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from avsbench_harness.engine import provenance
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.train import train
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.method import Method


@pytest.fixture
def copied(tiny: str, real_s4: Path, tmp_path: Path) -> Run:
    """A run of a copy of the tiny method that is versioned like an installed one."""
    folder = Path(shutil.copytree(tiny, tmp_path / "tiny"))
    run = plan(
        Request(method=str(folder), backbone="r50", task="s4", data=real_s4, out=tmp_path, device="cpu",
                workers=0, assignments=["options.width=4", "iterations=1"])
    )  # fmt: skip
    return dataclasses.replace(run, spec=run.spec.model_copy(update={"code": "tiny 1.0"}))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings of the module logged since the last call."""
    found = [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and record.name == provenance.__name__
    ]
    caplog.clear()
    return found


def test_changed_code_is_logged_on_resume(copied: Run, caplog) -> None:
    train(copied)
    copied.method.predict(copied, "test")
    assert warnings(caplog) == []
    model = copied.method.folder / "model.py"
    model.write_text(model.read_text() + "# changed\n")
    copied.method.predict(copied, "test")
    (predicted,) = warnings(caplog)
    train(copied)
    (resumed,) = warnings(caplog)
    for message in (predicted, resumed):
        assert f"The code of tiny has changed since {copied.id} was started" in message
        assert str(copied.folder) in message
    copied.method.predict(copied, "test")  # of the same attempt as the training before
    assert warnings(caplog) == []
    stored = json.loads((copied.folder / "provenance.json").read_text())["attempts"]
    assert (
        [one["method"] for one in stored][1] == provenance.method_hash(copied.method) != stored[0]["method"]
    )
    train(copied)
    assert len(warnings(caplog)) == 1
    assert len(json.loads((copied.folder / "provenance.json").read_text())["attempts"]) == 2


def test_a_changed_harness_is_logged_on_resume(copied: Run, caplog, monkeypatch) -> None:
    train(copied)
    monkeypatch.setattr(provenance, "harness_hash", lambda: "f" * 64)
    train(copied)
    (message,) = warnings(caplog)
    assert "The code of the harness has changed" in message


def test_another_number_of_threads_is_logged_on_resume(copied: Run, caplog) -> None:
    before = torch.get_num_threads()
    summary = train(copied)
    assert summary.threads == before
    torch.set_num_threads(before + 1)
    try:
        train(copied)
    finally:
        torch.set_num_threads(before)
    (message,) = warnings(caplog)
    assert f"started with {before} threads and continues with {before + 1}" in message
    assert f"OMP_NUM_THREADS={before}" in message


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"attempts": 3}', '{"attempts": [{"method": 1}]}'])
def test_a_damaged_file_is_replaced(copied: Run, caplog, content: str) -> None:
    copied.folder.mkdir(parents=True)
    path = copied.folder / "provenance.json"
    path.write_text(content)
    provenance.record_attempt(copied)
    (message,) = warnings(caplog)
    assert f"{path} is replaced" in message
    assert len(json.loads(path.read_text())["attempts"]) == 1


def test_names_and_contents_of_code_decide_the_hash(tmp_path: Path) -> None:
    hashes = set()
    for name, content in (("a.py", "1"), ("a.py", "2"), ("b.py", "2"), ("sub/b.py", "2")):
        shutil.rmtree(tmp_path / "code", ignore_errors=True)
        (tmp_path / "code" / name).parent.mkdir(parents=True)
        (tmp_path / "code" / name).write_text(content)
        hashes.add(provenance.code_hash([tmp_path / "code" / name], tmp_path / "code"))
    assert len(hashes) == 4


def test_caches_and_data_are_no_code(copied: Run) -> None:
    before = provenance.method_hash(copied.method)
    (copied.method.folder / "notes.md").write_text("text")
    (copied.method.folder / "weights.pth").write_bytes(b"1")
    assert provenance.method_hash(copied.method) == before
    (copied.method.folder / "recipes.yaml").write_text("{}")
    assert provenance.method_hash(copied.method) != before


def test_a_module_outside_of_packages_is_hashed_alone() -> None:
    class Alone(Method):
        name = "alone"

    assert not (Path(__file__).parent / "__init__.py").exists()
    assert provenance.method_hash(Alone()) == provenance.code_hash([Path(__file__)], Path(__file__).parent)
