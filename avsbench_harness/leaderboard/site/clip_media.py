"""Media of the clips in a gallery: frames, recordings, ground truth and predictions.

The files of a clip have a name derived from the fingerprint of the ground truth, because clips of different
data sets may have the same id. Frames are one WebP image, side by side; masks are PNG images in scripts: in a
page that is opened from the file system, scripts have no access to the pixels of image files.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbench_harness.data.audio.waveform import read_audio
from avsbench_harness.data.clip import Clip
from avsbench_harness.data.images import read_frame
from avsbench_harness.errors import AvsbError
from avsbench_harness.files import atomic_write
from avsbench_harness.leaderboard.site.pages import Pages, file_name
from avsbench_harness.submission.codes import OBJECT
from avsbench_harness.tasks import MASK_SIZE

#: Number of values in a waveform, per second.
PEAKS = 40
#: Quality of the frames, and bit rate mode of the recordings (0 best, 1 smallest).
WEBP_QUALITY, MP3_COMPRESSION = 72, 0.6
#: Sample rate of the recordings in the gallery.
RATE = 22_050


def media_folder(solution: str) -> Path:
    """The folder with the media of a data set's clips, relative to the site."""
    return Path("media") / file_name(solution)


def clip_key(clip_id: str) -> str:
    """Name of a clip's files."""
    return file_name("clip", clip_id)


def write_clip(pages: Pages, folder: Path, clip: Clip, truth: NDArray[np.uint8], semantic: bool) -> None:
    """Write the frames, the recording, the waveform and the ground truth of a clip; existing files are kept.

    Args:
        pages: the site.
        folder: see :func:`media_folder`.
        clip: the clip.
        truth: (T,H,W) labels.
        semantic: whether labels are classes.
    """
    key = clip_key(clip.id)
    path = folder / f"{key}.js"
    pages.written.add(path)
    frames = pages.site / folder / f"{key}.webp"
    if (pages.site / path).is_file() and frames.is_file():
        return
    strip = np.concatenate([read_frame(frame, MASK_SIZE) for frame in clip.frames[: len(truth)]], axis=1)
    with atomic_write(frames) as file:
        Image.fromarray(strip).save(file, format="WEBP", quality=WEBP_QUALITY, method=4)
    peaks, audio = _write_audio(pages.site / folder, key, clip, len(truth))
    values = {"key": key, "truth": mask_png(truth, semantic), "peaks": peaks, "audio": audio}
    pages.write_data(path, "receiveClip", values)


def write_masks(
    pages: Pages, folder: Path, run: str, clip_id: str, masks: Mapping[str, dict[str, Any]]
) -> None:
    """Write the predictions of a run for a clip.

    Args:
        pages: the site.
        folder: see :func:`media_folder`.
        run: key of the run.
        clip_id: id of the clip.
        masks: by audio condition: the ``mask`` (see :func:`mask_png`), score and source of the recording.
    """
    key = clip_key(clip_id)
    conditions = [{"condition": name, **values} for name, values in masks.items()]
    values = {"run": run, "key": key, "conditions": conditions}
    pages.write_data(folder / run / f"{key}.js", "receiveMasks", values)


def mask_png(labels: NDArray[np.uint8], semantic: bool) -> str:
    """Labels (T,H,W) side by side as a PNG image in base64: class indices, or 0 and 255."""
    strip = np.concatenate(list(labels), axis=1)
    image = Image.fromarray(strip) if semantic else Image.fromarray(strip > 0)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def predicted_labels(codes: NDArray[np.uint8], size: tuple[int, int], semantic: bool) -> NDArray[np.uint8]:
    """Labels of a prediction (T,h,w) at the size (H,W) of the ground truth, by nearest neighbour."""
    labels = codes if semantic else (codes >= OBJECT).astype(np.uint8)
    if labels.shape[1:] == size:
        return labels
    rows, columns = (
        (np.arange(wanted) * have) // wanted for wanted, have in zip(size, labels.shape[1:], strict=True)
    )
    resized: NDArray[np.uint8] = labels[:, rows][:, :, columns]
    return resized


def _write_audio(folder: Path, key: str, clip: Clip, seconds: int) -> tuple[list[int], str]:
    """Write the recording as MP3; the peaks of its waveform in percent, and the file's name.

    Both are empty without a readable recording.
    """
    if clip.audio is None:
        return [], ""
    try:
        samples, rate = read_audio(clip.audio)
    except AvsbError:
        return [], ""
    length = seconds * rate
    samples = np.pad(samples[:length], (0, max(0, length - len(samples))))
    parts = np.array_split(np.abs(samples), seconds * PEAKS)
    peaks = np.array([part.max() if len(part) else 0.0 for part in parts])
    scale = max(float(peaks.max()), 0.05)  # silence is not amplified to noise
    name = f"{key}.mp3"
    _write_mp3(folder / name, samples, rate)
    return [round(100 * float(value) / scale) for value in peaks], name


def _write_mp3(path: Path, samples: NDArray[np.float64], rate: int) -> None:
    """Write a recording as MP3, at the highest rate that MP3 supports up to :data:`RATE`."""
    import soundfile

    if rate > RATE:
        wanted = round(len(samples) * RATE / rate)
        positions = np.linspace(0, len(samples) - 1, wanted)
        width = max(1, rate // RATE)
        smooth = np.convolve(samples, np.ones(width) / width, mode="same")
        samples, rate = np.interp(positions, np.arange(len(samples)), smooth), RATE
    elif rate not in (8000, 11_025, 12_000, 16_000, RATE):
        wanted = round(len(samples) * 16_000 / rate)
        positions = np.linspace(0, len(samples) - 1, wanted)
        samples, rate = np.interp(positions, np.arange(len(samples)), samples), 16_000
    with atomic_write(path) as file:
        soundfile.write(
            file, samples, rate, format="MP3", subtype="MPEG_LAYER_III", compression_level=MP3_COMPRESSION
        )
