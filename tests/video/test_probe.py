"""Facts of video files, and files that are none."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from avsbench_harness.errors import UsageError
from avsbench_harness.testing.videos import pattern, write_test_video
from avsbench_harness.video.probe import probe


def test_facts_of_a_video(lossless: Path) -> None:
    media = probe(lossless)
    assert (media.width, media.height, media.rate) == (64, 48, 10)
    assert (media.seconds, media.zero, media.sound_rate) == (2, 0, 16_000)
    assert media.sound_end == 2


def test_rotated_frames_have_the_size_as_displayed(tmp_path: Path) -> None:
    media = probe(write_test_video(tmp_path / "phone.mp4", rotation=-90))
    assert (media.width, media.height) == (48, 64)


def test_the_length_of_a_file_that_was_cut_is_what_it_holds(tmp_path: Path) -> None:
    whole = write_test_video(tmp_path / "whole.mkv", seconds=6)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert 1 < probe(cut).seconds < 5


def test_time_begins_at_the_first_picture(tmp_path: Path) -> None:
    media = probe(write_test_video(tmp_path / "stream.ts"))  # does not begin at 0
    assert media.zero > 0
    assert media.seconds == pytest.approx(2, abs=0.11)
    assert media.time(round(media.zero * 90_000), Fraction(1, 90_000)) == pytest.approx(0, abs=1e-4)
    assert media.time(2**33, Fraction(1, 90_000)) is None  # beyond the end


def _sound_only(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mp3", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _picture(path: Path) -> Path:
    Image.fromarray(pattern((64, 48))(0)).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("sound.mp3", _sound_only, "sound.mp3 has sound but no picture"),
        ("empty.mp4", lambda path: _text(path, ""), "empty.mp4 is empty (0 bytes)"),
        ("text.mp4", lambda path: _text(path, "no video\n" * 99), "text.mp4 cannot be read as a video"),
        ("text.txt", lambda path: _text(path, "no video\n" * 99), "text.txt cannot be read as a video"),
        ("picture.png", _picture, "picture.png cannot be read as a video"),
        ("missing.mp4", lambda path: path, "There is no file"),
        ("folder", lambda path: path.mkdir(), "folder is a folder; pass video files"),
    ],
)
def test_what_is_no_video_is_one_sentence(tmp_path: Path, name: str, make, message: str) -> None:
    make(tmp_path / name)
    with pytest.raises(UsageError) as error:
        probe(tmp_path / name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", "#EXTM3U\n#EXTINF:1,\nvideo.ts\n#EXT-X-ENDLIST\n"),
        ("list.txt", "ffconcat version 1.0\nfile video.ts\n"),
    ],
)
def test_files_that_name_other_files_are_refused(tmp_path: Path, name: str, text: str) -> None:
    write_test_video(tmp_path / "video.ts")
    with pytest.raises(UsageError, match="cannot be read as a video"):
        probe(_text(tmp_path / name, text))


def test_a_name_that_looks_like_a_protocol_is_a_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_test_video(tmp_path / "video.ts")
    with pytest.raises(UsageError, match="There is no file concat:"):
        probe(Path("concat:video.ts|video.ts"))
