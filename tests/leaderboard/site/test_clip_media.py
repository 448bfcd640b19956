"""Media of clips: masks, recordings and names."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from avsbench_harness.data.clip import Clip
from avsbench_harness.leaderboard.site.clip_media import (
    PEAKS,
    mask_png,
    media_folder,
    predicted_labels,
    write_clip,
)
from avsbench_harness.leaderboard.site.pages import Pages


def pixels(text: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(text))).convert("L"))


def test_masks_are_lossless_and_side_by_side() -> None:
    labels = np.array([[[0, 1], [70, 3]], [[5, 0], [0, 0]]], np.uint8)
    assert pixels(mask_png(labels, semantic=True)).tolist() == [[0, 1, 5, 0], [70, 3, 0, 0]]
    assert pixels(mask_png(labels, semantic=False)).tolist() == [[0, 255, 255, 0], [255, 255, 0, 0]]


def test_predictions_have_the_size_of_the_ground_truth() -> None:
    codes = np.array([[[127, 128], [255, 0]]], np.uint8)
    assert predicted_labels(codes, (2, 2), semantic=False).tolist() == [[[0, 1], [1, 0]]]
    assert predicted_labels(codes, (4, 2), semantic=False).tolist() == [[[0, 1], [0, 1], [1, 0], [1, 0]]]
    assert predicted_labels(np.array([[[7]]], np.uint8), (1, 2), semantic=True).tolist() == [[[7, 7]]]


def test_recordings_peaks_and_frames(tmp_path: Path) -> None:
    """Second 1 is loud, second 2 is silent; the longer rest of the recording is left out."""
    sound, frame = tmp_path / "a.wav", tmp_path / "a.png"
    samples = np.concatenate([np.full(48_000, 0.5), np.zeros(48_000), np.full(48_000, 0.9)])
    soundfile.write(sound, samples, 48_000)
    Image.new("RGB", (40, 20), (200, 10, 10)).save(frame)
    clip = Clip("odd <name>", (frame, frame), (None, None), sound, None, "", "s4")
    pages = Pages(tmp_path / "site")
    write_clip(pages, media_folder("f" * 64), clip, np.ones((2, 224, 224), np.uint8), semantic=False)
    folder = tmp_path / "site" / media_folder("f" * 64)
    (script,) = folder.glob("*.js")
    values = json.loads(script.read_text().removeprefix("avsb.receiveClip(").removesuffix(");\n"))
    assert values["peaks"] == [100] * PEAKS + [0] * PEAKS
    info = soundfile.info(folder / values["audio"])
    assert info.format == "MP3"
    assert abs(info.duration - 2) < 0.1
    image = Image.open(folder / f"{values['key']}.webp")
    assert image.size == (448, 224)
    assert image.getpixel((300, 100))[0] > 180


def test_clips_without_a_recording(tmp_path: Path) -> None:
    frame, broken = tmp_path / "a.png", tmp_path / "a.wav"
    Image.new("RGB", (8, 8)).save(frame)
    broken.write_bytes(b"no sound")
    for number, audio in enumerate((None, broken)):
        clip = Clip(f"c{number}", (frame,), (None,), audio, None, "", "s4")
        pages = Pages(tmp_path / "site")
        write_clip(pages, Path("media"), clip, np.zeros((1, 224, 224), np.uint8), semantic=False)
    assert not list((tmp_path / "site").rglob("*.mp3"))
    assert len(list((tmp_path / "site").rglob("*.webp"))) == 2
