"""Exported models against the runs' own predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from avsbench_harness.data.batch import Batch
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.system import build_system
from avsbench_harness.errors import AvsbError, MissingDataError, UsageError
from avsbench_harness.launch import export_model as exporting
from avsbench_harness.launch.export_model import export_model
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.method import methods
from avsbench_harness.weights.tensors import save_tensors

METHODS = sorted(methods())


def untrained(run: Run) -> Run:
    """Save random weights as the run's."""
    run.folder.mkdir(parents=True, exist_ok=True)
    save_tensors(run.weights_file, build_system(run, pretrained=False).state_dict())
    return run


def small(method: str, out: Path, task: str = "s4", *assignments: str) -> Run:
    return untrained(
        plan(
            Request(
                method=method, backbone="resnet18", task=task, preset="smoke", out=out, device="cpu",
                pretrained=False, assignments=("image_size=64", "audio.encoder=compact", *assignments),
            )
        )
    )  # fmt: skip


def test_the_program_predicts_what_the_run_predicts(planned, tmp_path: Path) -> None:
    """On other inputs than those that it was exported with."""
    run = untrained(planned(tmp_path, "image_size=64"))
    exported = export_model(run, "torch", tmp_path / "model.pt2")
    assert exported.difference < 1e-5
    assert exported.inputs == {"images": [1, 5, 3, 64, 64], "audio": [1, 5, 1, 96, 64]}
    values = json.loads(exported.description.read_text())
    assert values["run"] == run.id
    assert values["output"]["shape"] == [1, 5, 64, 64]
    images, audio = torch.rand(1, 5, 3, 64, 64), torch.rand(1, 5, 1, 96, 64)
    system = build_system(run, pretrained=False)
    program = torch.export.load(exported.file).module()
    torch.testing.assert_close(program(images, audio), system.predict(Batch(images, audio)))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_exported(method: str, tmp_path: Path) -> None:
    assert export_model(small(method, tmp_path), "torch", tmp_path / "model.pt2").difference < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("task", ["s4", "avss"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_exported_to_onnx(method: str, task: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    exported = export_model(small(method, tmp_path, task), "onnx", tmp_path / "model.onnx")
    assert exported.difference < 1e-3


def test_an_onnx_model_predicts_what_the_run_predicts(planned, tmp_path: Path) -> None:
    reference = pytest.importorskip("onnx.reference")
    pytest.importorskip("onnxscript")
    run = untrained(planned(tmp_path, "image_size=32"))
    exported = export_model(run, "onnx", tmp_path / "model.onnx")
    images, audio = torch.rand(1, 5, 3, 32, 32), torch.rand(1, 5, 1, 96, 64)
    session = reference.ReferenceEvaluator(str(exported.file))
    assert session.input_names == ["images", "audio"]
    (found,) = session.run(None, {"images": images.numpy(), "audio": audio.numpy()})
    expected = build_system(run, pretrained=False).predict(Batch(images, audio))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_a_method_that_cannot_be_exported_says_why(planned, tmp_path: Path, monkeypatch) -> None:
    run = untrained(planned(tmp_path))
    model = type(build_system(run, pretrained=False).model)
    real = model.predict

    def predict(self, batch):
        return real(self, batch) * float(batch.images.sum())  # depends on values of the input

    monkeypatch.setattr(model, "predict", predict)
    with pytest.raises(AvsbError, match=r"tiny cannot be exported: .*\(test_export_model.py, line"):
        export_model(run, "torch", tmp_path / "model.pt2")
    assert not (tmp_path / "model.pt2").exists()


def test_an_export_that_predicts_something_else_is_refused(planned, tmp_path: Path, monkeypatch) -> None:
    run = untrained(planned(tmp_path))
    real = exporting._save_torch
    monkeypatch.setattr(exporting, "_save_torch", lambda *given: (real(*given)[0], real(*given)[1] + 0.01))
    with pytest.raises(
        AvsbError, match="predicts something else than the run: the largest difference is 0.01"
    ):
        export_model(run, "torch", tmp_path / "model.pt2")
    assert not (tmp_path / "model.pt2").exists()


def test_missing_weights_and_packages(planned, tmp_path: Path, monkeypatch) -> None:
    run = planned(tmp_path)
    with pytest.raises(MissingDataError, match="has no trained weights"):
        export_model(run, "torch", tmp_path / "model.pt2")
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"needs onnx and onnxscript; .*pip install 'avsbench-harness\[onnx\]'"
    ):
        export_model(untrained(run), "onnx", tmp_path / "model.onnx")


def test_the_command(avsb, planned, tiny: str, real_s4: Path, tmp_path: Path) -> None:
    run = untrained(planned(tmp_path, "image_size=64"))
    exporting.write_json(run.folder / "spec.json", run.spec.model_dump(mode="json"))
    place = ("--out", tmp_path, "--data", real_s4, "--method", tiny)
    result = avsb("export", run.id[:8], *place, "--json")
    assert result.code == 0, result.err
    assert Path(result.json["file"]).resolve() == (run.folder / "model.pt2").resolve()
    assert avsb("export", run.id, *place, "--format", "tflite").code == 2
