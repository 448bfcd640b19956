"""One pass under several audio conditions gives the predictions of one pass per condition."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from avsbench_harness.data.clip_source import FileDecoder
from avsbench_harness.engine import predict_conditions as module
from avsbench_harness.engine.interrupt import StopRequest
from avsbench_harness.engine.predict import predict
from avsbench_harness.engine.predict_conditions import predict_conditions
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.train import train
from avsbench_harness.errors import Interrupted, MissingDataError, UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.submission import read_submission

NAMES = ("clean", "silence", "noise-white", "noise-pink", "swapped", "mixed@20", "mixed@-10")


@pytest.fixture
def trained(planned, tmp_path: Path) -> Run:
    run = planned(tmp_path / "one", "epochs=1")
    train(run)
    return run


def elsewhere(run: Run, out: Path) -> Run:
    """The trained run in another folder."""
    other = replace(run, out=out)
    shutil.copytree(run.folder, other.folder)
    return other


def counted(monkeypatch, run: Run) -> list[int]:
    """The numbers of frames that the backbone computes."""
    counts: list[int] = []
    model = type(run.build_model(pretrained=False))
    real = model.encode

    def encode(self, images, source="images"):
        counts.append(len(images))
        return real(self, images, source)

    monkeypatch.setattr(model, "encode", encode)
    return counts


def test_the_predictions_are_those_of_one_pass_per_condition(
    trained: Run, tmp_path: Path, monkeypatch
) -> None:
    other = elsewhere(trained, tmp_path / "other")
    wanted = {name: sha256_file(predict(replace(other, condition=name), "test")) for name in NAMES}
    frames = counted(monkeypatch, trained)
    found = predict_conditions(trained, "test", NAMES)
    assert sum(frames) == 3 * 5  # three clips, once
    assert {name: sha256_file(path) for name, path in found.items()} == wanted
    assert len(set(wanted.values())) == len(NAMES)
    assert found["mixed@-10"].name == f"{trained.id}-mixed@-10.npz"
    with read_submission(found["mixed@-10"]) as submission:
        assert submission.header.note.startswith("audio: mixed@-10, pairs ")
    assert not (trained.folder / "predictions").exists()


def test_an_interrupted_pass_is_resumed(trained: Run, tmp_path: Path, monkeypatch) -> None:
    other = elsewhere(trained, tmp_path / "other")
    wanted = {name: sha256_file(path) for name, path in predict_conditions(other, "test", NAMES).items()}
    stops = iter([None, signal.SIGTERM])
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "anywhere", lambda self: next(stops))
        patch.setattr(StopRequest, "error", lambda self, text: Interrupted(text, 143))
        with pytest.raises(Interrupted, match="The predictions so far are kept; rerun the same command"):
            predict_conditions(trained, "test", NAMES)
    assert not (trained.out / "submissions").exists()
    frames = counted(monkeypatch, trained)
    found = predict_conditions(trained, "test", NAMES)
    assert sum(frames) == 5  # the second batch has one clip
    assert {name: sha256_file(path) for name, path in found.items()} == wanted


def test_predictions_of_other_weights_are_not_used(trained: Run, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module.Predictions, "write", lambda *arguments: None)
        patch.setattr(module.Predictions, "remove", lambda self: None)
        predict_conditions(trained, "test", ["silence"])
    frames = counted(monkeypatch, trained)
    with trained.weights_file.open("ab") as file:
        file.write(b"")
    monkeypatch.setattr(module, "sha256_file", lambda path: "other")
    predict_conditions(trained, "test", ["silence"])
    assert sum(frames) == 3 * 5


def test_clips_are_read_once(trained: Run, monkeypatch) -> None:
    monkeypatch.setattr("avsbench_harness.engine.predict.cached_source", lambda decoder, *rest: decoder)
    read: list[int] = []
    real = FileDecoder.read
    monkeypatch.setattr(FileDecoder, "read", lambda self, index: (read.append(index), real(self, index))[1])
    predict_conditions(trained, "test", NAMES)
    assert sorted(read) == [0, 1, 2]


def test_what_cannot_be_predicted_is_refused(planned, trained: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="under the condition 'shifted@1': it is not meant for s4"):
        predict_conditions(trained, "test", ["shifted@1"])
    with pytest.raises(UsageError, match="Unknown audio condition 'loud'"):
        predict_conditions(trained, "test", ["loud"])
    with pytest.raises(MissingDataError, match="has no trained weights"):
        predict_conditions(planned(tmp_path / "none"), "test", NAMES)
