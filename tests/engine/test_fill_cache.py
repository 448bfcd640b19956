"""Runs read cached clips, and train the same without the cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.cache.decoded import DecodedClips
from avsbench_harness.data.clip_source import FileDecoder
from avsbench_harness.engine import fill_cache
from avsbench_harness.engine.fill_cache import cache_clips, cached_source
from avsbench_harness.engine.interrupt import StopRequest
from avsbench_harness.engine.predict import evaluation_clips
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.train import train
from avsbench_harness.errors import AvsbError, Interrupted, UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.tasks import S4


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Messages of the module logged so far."""
    caplog.set_level("INFO", logger="avsbench_harness")
    return lambda: [record.message for record in caplog.records if record.name == fill_cache.__name__]


def trained(run: Run) -> tuple[str, list[str]]:
    """Train a run; returns the hash of its weights, and the losses of its log."""
    train(run)
    lines = (run.folder / "log.jsonl").read_text().splitlines()
    return sha256_file(run.weights_file), [str(json.loads(line).get("loss")) for line in lines]


def test_a_run_decodes_each_clip_once_and_trains_as_without_the_cache(
    planned, tmp_path: Path, real_s4: Path, monkeypatch, messages: Callable[[], list[str]]
) -> None:
    decoded: list[str] = []
    real = FileDecoder.read

    def read(self, index: int):
        decoded.append(self.clips[index].id)
        return real(self, index)

    monkeypatch.setattr(FileDecoder, "read", read)
    ended = trained(planned(tmp_path / "one", "epochs=3"))
    dataset = open_dataset(real_s4, S4)
    ids = [clip.id for split in ("train", "val") for clip in dataset.clips(split)]
    assert sorted(decoded) == sorted(ids)
    assert trained(planned(tmp_path / "two", "epochs=3")) == ended
    assert len(decoded) == len(ids)

    def unwritable(*_: object) -> DecodedClips:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(fill_cache, "DecodedClips", unwritable)
    assert trained(planned(tmp_path / "three", "epochs=3")) == ended
    assert len(decoded) == len(ids) + 3 * len(ids)
    assert len(messages()) == 2  # for train and for val
    assert all("Permission denied" in line for line in messages())


def test_a_run_of_a_few_steps_decodes_only_its_clips(planned, tmp_path: Path, monkeypatch) -> None:
    decoded: list[int] = []
    real = FileDecoder.read
    monkeypatch.setattr(FileDecoder, "read", lambda self, index: decoded.append(index) or real(self, index))
    train(planned(tmp_path, "iterations=1", "batch_size=1", "select.mode=last"))
    assert len(decoded) == 1


def test_too_little_room_is_logged_and_files_are_decoded(
    planned, tmp_path: Path, monkeypatch, messages: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(DecodedClips, "make_room", lambda self: "No room.")
    dataset = evaluation_clips(planned(tmp_path), "test")
    assert isinstance(dataset.source, FileDecoder)
    assert messages() == ["No room. Until then clips are decoded from their files at every reading."]
    with pytest.raises(AvsbError, match=r"No room\."):
        cache_clips(planned(tmp_path).dataset, "test", 32, "squeeze", None)


def test_a_stop_ends_decoding_between_clips(planned, tmp_path: Path) -> None:
    run = planned(tmp_path)
    stop = StopRequest()
    stop._receive(15, None)
    decoder = FileDecoder(run.dataset.clips("test"), run.task, 32)
    with pytest.raises(Interrupted, match="Stopped by SIGTERM") as stopped:
        cached_source(decoder, "test", stop)
    assert stopped.value.exit_code == 143


def test_the_command_decodes_the_clips_that_runs_read(
    planned, tmp_path: Path, monkeypatch, real_s4: Path
) -> None:
    run = planned(tmp_path, "fit=pad", "train_fit=crop")
    first = cache_clips(run.dataset, "test", 32, "pad", None)
    assert first.decoded == first.clips == len(run.dataset.clips("test"))
    assert first.bytes > 0
    assert cache_clips(run.dataset, "train", 32, "crop", None).decoded > 0
    monkeypatch.setattr(FileDecoder, "read", lambda self, index: pytest.fail("decoded again"))
    again = cache_clips(run.dataset, "test", 32, "pad", None)
    assert (again.decoded, again.bytes, again.folder) == (0, 0, first.folder)
    assert evaluation_clips(run, "test")[0, 0].images.any()
    with pytest.raises(UsageError, match="Unknown fit 'pat'. Did you mean 'pad'"):
        cache_clips(run.dataset, "test", 32, "pat", None)
