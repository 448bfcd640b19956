"""Opening trained models by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import avsbench_harness as avsb
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.weights.tensors import load_tensors


def test_a_run_by_folder_id_and_weights_file(untrained, tiny: str) -> None:
    folder = untrained("s4")
    out = folder.parents[1]
    names = [folder, folder.name, folder / "weights.safetensors"]
    loaded = [avsb.load(name, out=out, method=tiny, device="cpu") for name in names]
    state = load_tensors(folder / "weights.safetensors")
    for model in loaded:
        assert model.task.name == "s4"
        assert model.run.spec.method == "tiny"
        assert all(torch.equal(value, state[name]) for name, value in model._system.state_dict().items())
    assert len({model.weights for model in loaded}) == 1


def test_what_cannot_be_opened_says_why(untrained, tiny: str, tmp_path: Path) -> None:
    folder = untrained("s4")
    with pytest.raises(UsageError, match="is for s4, not for avss"):
        avsb.load(folder, method=tiny, task="avss")
    with pytest.raises(MissingDataError, match=r"called 'nothing'\. .*avsb demo.*no general-purpose weights"):
        avsb.load("nothing", out=tmp_path)
    with pytest.raises(MissingDataError, match="There are no weights of tpavi with r50"):
        avsb.load("tpavi:r50", out=tmp_path)
    shutil.copytree(folder, tmp_path / "runs" / folder.name)
    with pytest.raises(MissingDataError, match=f"On this machine: {folder.name}"):
        avsb.load("nothing", out=tmp_path)
    (tmp_path / "runs" / folder.name / "weights.safetensors").unlink()
    with pytest.raises(MissingDataError, match="is not trained yet"):
        avsb.load(folder.name, out=tmp_path, method=tiny)
    shutil.copy(folder / "weights.safetensors", tmp_path / "alone.safetensors")
    with pytest.raises(UsageError, match="does not say for which network it is"):
        avsb.load(tmp_path / "alone.safetensors", out=tmp_path)


def test_method_and_backbone_name_the_only_model_of_both(untrained, tiny: str, tmp_path: Path) -> None:
    for task in ("s4", "avss"):
        folder = untrained(task)
        shutil.copytree(folder, tmp_path / "runs" / folder.name)
    name = f"{tiny}:r50"
    with pytest.raises(
        UsageError, match="matches avss-tiny-.*, s4-tiny-.*; name one of them, or pass the task"
    ):
        avsb.load(name, out=tmp_path, method=tiny)
    assert avsb.load(name, out=tmp_path, method=tiny, task="avss", device="cpu").task.name == "avss"


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON"])
def test_a_damaged_run_does_not_prevent_the_others(untrained, tiny: str, tmp_path: Path, text: str) -> None:
    folder = untrained("s4")
    shutil.copytree(folder, tmp_path / "runs" / folder.name)
    shutil.copytree(folder, tmp_path / "runs" / "damaged")
    (tmp_path / "runs" / "damaged" / "spec.json").write_text(text)
    with pytest.raises(MissingDataError, match=f"On this machine: {folder.name}\\. "):
        avsb.load("nothing", out=tmp_path)
