"""``avsb bench``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from avsbench_harness.launch import benchmark
from avsbench_harness.method import Entry, Method, from_folder
from avsbench_harness.results.measurement import read_measurement


@pytest.fixture
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the memory measurement, whose separate process takes seconds to start."""
    monkeypatch.setattr(benchmark, "training_peak", lambda run, method: 0.5)


@pytest.fixture
def quick(avsb, real_s4: Path, tmp_path: Path, no_child):
    def call(*arguments: object):
        return avsb("bench", *arguments, "--data", real_s4, "--out", tmp_path, "--device", "cpu",
                    "--workers", 0, "--repeats", 2, "--backbone", "test_resnet")  # fmt: skip

    return call


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--device", "cuda:99"], "There is no device cuda:99 here"),
        (["--device", "tpu"], "Unknown device 'tpu'"),
        (["--precision", "bf61"], "Unknown precision 'bf61'. Did you mean 'bf16'?"),
        (["--batch", "0"], "--batch"),
        (["--backbone", "r50,r5o"], "r5o"),
        (["--backbone", ","], "--backbone names no backbone"),
        (["--task", "s5"], "Unknown task 's5'"),
        (["--variant", "realesed"], "Unknown variant of tiny 'realesed'. Did you mean 'released'?"),
    ],
)
def test_invalid_input_is_a_usage_error(avsb, tiny: str, tmp_path: Path, arguments, sentence: str) -> None:
    result = avsb("bench", tiny, "--out", tmp_path, *arguments)
    assert result.code == 2
    assert sentence in result.err
    assert not list(tmp_path.iterdir())


def test_an_unknown_method(avsb, tmp_path: Path) -> None:
    result = avsb("bench", "combi", "--out", tmp_path)
    assert result.code == 2
    assert "Unknown method 'combi'. Did you mean 'combo" in result.err


def test_an_override_changes_the_file_name(quick, tiny: str, tmp_path: Path) -> None:
    result = quick(tiny, "--set", "image_size=48", "--set", "options.width=4")
    assert "2 x 5 x 48 px" in result.out
    assert "options.width=4" in result.out
    (path,) = (tmp_path / "results" / "bench").iterdir()
    found = read_measurement(path)
    assert path.name == f"{found.name}.json" != "s4-tiny-released-test_resnet-cpu-fp32-b2.json"
    assert found.changes == {"image_size": 48, "options.width": 4}
    assert found.options == {"width": 4}
    wrong = quick(tiny, "--set", "image_sice=48")
    assert wrong.code == 2
    assert "Did you mean 'image_size'?" in wrong.err


def test_missing_data(avsb, tmp_path: Path) -> None:
    result = avsb("bench", "--data", tmp_path / "nowhere", "--out", tmp_path, "--device", "cpu")
    assert result.code == 4
    assert "nowhere" in result.err
    assert result.out == ""
    assert not list(tmp_path.iterdir())


def test_out_of_memory_error_names_a_batch_that_fits(quick, tiny: str, tmp_path: Path, monkeypatch) -> None:
    from avsbench_harness.engine.system import System

    real = System.losses

    def losses(self, batch):
        if batch.shape[0] > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, batch)

    def peak(run, method):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(System, "losses", losses)
    monkeypatch.setattr(benchmark, "training_peak", peak)
    result = quick(tiny, "--batch", 40)
    assert result.code == 1
    assert (
        "with a batch of 40 clips of 5 frames at 32 pixels in fp32; a probe found that 5 fit: " in result.err
    )
    assert "pass --batch 5, or train in precision bf16." in result.err
    assert not list(tmp_path.iterdir())


def test_a_measurement_is_written_printed_and_replaced(quick, avsb, tiny: str, tmp_path: Path) -> None:
    (first,) = quick(tiny, "--json").json
    path = tmp_path / "results/bench/s4-tiny-released-test_resnet-cpu-fp32-b2.json"
    assert first["file"] == str(path)
    found = first["measurement"]
    assert found["batch"] == {"clips": 2, "frames": 5, "image_size": 32, "annotated": "first"}
    assert found["cost"]["parameters"] == (27 * 8 + 8) + 16 + (128 * 8 + 8) + (9 * 8 + 1)
    assert found["memory_gib"] == 0.5
    assert found["loading"].items() >= {"data": "custom", "synthetic": False, "workers": 0}.items()
    written = path.read_text()
    result = quick(tiny, "--precision", "fp32", "--batch", 1)
    assert "s4-tiny-released-test_resnet-cpu-fp32-b1.json" in result.out
    assert "1 x 5 x 32 px, fp32" in result.out
    assert quick(tiny).code == 0
    assert path.read_text() != written
    assert len(list(path.parent.iterdir())) == 2
    (tmp_path / "results" / "bench" / "else.json").write_text(written)
    checked = avsb("results", "validate", "--results", tmp_path / "results", "--json")
    assert checked.code == 1
    assert checked.json["records"] == 0
    assert checked.json["measurements"] == 3
    (fault,) = checked.json["faults"]
    assert "else.json: the file holds measurement s4-tiny-released-test_resnet-cpu-fp32-b2; its name" in fault


def test_all_installed_methods(quick, tiny: str, tmp_path: Path, monkeypatch) -> None:
    class Other(Method):
        name, paper, variants, tasks, backbones = "other", "none", ("released",), ("avss",), ("r50",)

        def build(self, task, backbone, *, variant, **options):
            raise AssertionError("it has no such network")

    entries = {
        "broken": Entry("broken", "a test", None, "ImportError: no such thing"),
        "other": Entry("other", "a test", Other()),
        tiny: Entry(tiny, "a test", from_folder(Path(tiny))),
    }
    real = benchmark.get_method
    monkeypatch.setattr(benchmark, "methods", lambda: entries)
    monkeypatch.setattr(
        benchmark, "get_method", lambda name: real(name) if name == tiny else entries[name].require()
    )
    result = quick()
    assert result.code == 1
    assert "broken test_resnet: n/a (Method 'broken' from a test cannot be loaded: ImportError" in result.out
    assert "other test_resnet: n/a (other has no model for s4; it supports avss.)" in result.out
    assert len(list((tmp_path / "results" / "bench").iterdir())) == 1
    del entries["broken"]
    assert quick().code == 0


@pytest.mark.slow
def test_synthetic_data_and_memory(avsb, tiny: str, tmp_path: Path) -> None:
    (found,) = avsb("bench", tiny, "--task", "ms3", "--out", tmp_path, "--device", "cpu", "--workers", 1,
                    "--repeats", 1, "--json").json  # fmt: skip
    assert found["measurement"]["loading"]["synthetic"]
    assert 0 < found["measurement"]["memory_gib"] < 0.3
    assert found["measurement"]["batch"]["annotated"] == "all"


@pytest.mark.gpu
def test_on_cuda(avsb, tiny: str, real_s4: Path, tmp_path: Path) -> None:
    (found,) = avsb("bench", tiny, "--data", real_s4, "--out", tmp_path, "--device", "cuda", "--precision",
                    "fp16", "--json").json  # fmt: skip
    assert found["measurement"]["device"]["kind"] == "cuda"
    assert found["measurement"]["memory_gib"] > 0
