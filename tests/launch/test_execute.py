"""Methods whose code raises exceptions or returns something else than its interface says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from avsbench_harness.engine.run import Run
from avsbench_harness.errors import AvsbError, UsageError
from avsbench_harness.launch.execute import execute
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.results.record import read_record

OWN_TRAINING = """
    def train(self, run):
        from avsbench_harness.method import TrainingSummary
        from avsbench_harness.weights.tensors import save_tensors
        model = run.build_model(pretrained=False)
        save_tensors(run.weights_file, {f"model.{name}": value for name, value in model.state_dict().items()})
        return TrainingSummary(weights_file=run.weights_file.name, steps=1, selected_step=1, validations=[],
                               seconds=1.0, device=run.device)
"""

LOGITS = """
    def predict(self, batch):
        return self(batch).logits.squeeze(2) * 100 + 10
"""


@pytest.fixture
def changed(tiny: str, real_s4: Path, tmp_path: Path) -> Callable[[str, str], Run]:
    """Plan a run of the tiny method with code added to its class and to that of its network."""

    def make(method: str, network: str = "") -> Run:
        folder = tmp_path / "method"
        shutil.copytree(tiny, folder)
        for name, code in (("__init__.py", method), ("model.py", network)):
            with (folder / name).open("a") as file:
                file.write(code)
        return plan(
            Request(
                str(folder), "r50", data=real_s4, preset="smoke", device="cpu", workers=0,
                out=tmp_path / "out", assignments=["options.width=4"],
            )
        )  # fmt: skip

    return make


@pytest.mark.parametrize(
    ("method", "network", "message"),
    [
        ("\n    def train(self, run): raise KeyError('k')\n", "", r"__init__\.py, line \d+: KeyError: 'k'"),
        ("\n    def train(self, run): raise SystemExit(0)\n", "", "SystemExit: 0"),
        ("\n    def predict(self, run, split): 1 / 0\n", "", "ZeroDivisionError: division by zero"),
        ("", "\n    def diagnostics(self): raise ValueError('a\\nb\\x1b[1m')\n", "ValueError: a b"),
    ],
)
def test_an_exception_of_a_method_is_one_sentence(changed, method: str, network: str, message: str) -> None:
    run = changed(method, network)
    with pytest.raises(
        AvsbError, match=f"^The code of tiny failed at .*{message}.*; see .*traceback.txt.$"
    ) as error:
        execute(run)
    assert str(error.value).isprintable()
    assert "Traceback" in (run.folder / "traceback.txt").read_text()
    assert "The code of tiny failed" in str(read_record(run.record_file).reason)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            "\n    def train(self, run): return None\n",
            "`train` of tiny must return a TrainingSummary, not None",
        ),
        ("\n    def predict(self, run, split): return 'x'\n", "`predict` of tiny must return the path of a"),
    ],
)
def test_a_wrong_result_of_a_method_is_one_sentence(changed, method: str, message: str) -> None:
    with pytest.raises(AvsbError, match=message):
        execute(changed(method))


def test_a_defect_of_the_harness_keeps_its_traceback(changed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avsbench_harness.engine.train.read_summary", lambda run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        execute(changed(""))


def test_a_method_with_its_own_training_is_checked_first(changed) -> None:
    run = changed(OWN_TRAINING, LOGITS)
    with pytest.raises(
        AvsbError, match=r"`predict` of tiny must return probabilities .* for the first batch"
    ):
        execute(run)
    assert not run.weights_file.exists()


def test_weights_without_the_audio_encoder_are_refused(changed) -> None:
    with pytest.raises(UsageError, match=r"weights\.safetensors: The audio encoder is missing"):
        execute(changed(OWN_TRAINING))
