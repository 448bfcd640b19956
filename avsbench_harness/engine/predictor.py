"""A trained network with its preprocessing: prediction of frames and sound from anywhere.

Frames and sound pass through the functions that prepare the clips of a data set, so that the masks are those
that ``avsb predict`` gives for the same frames and sound in the layout of AVSBench.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from avsbench_harness.data.audio.logmel import waveform_log_mel
from avsbench_harness.data.audio.waveform import SAMPLE_RATE
from avsbench_harness.data.batch import Batch
from avsbench_harness.data.cache.audio import embed_log_mel, separated
from avsbench_harness.data.images import fit_frame
from avsbench_harness.data.loader import network_inputs
from avsbench_harness.data.maskige import SEGMENTERS, draw_maskige, fit_maskige
from avsbench_harness.data.masks import resize_mask
from avsbench_harness.data.padding import content_size, pad_frames, remove_padding
from avsbench_harness.data.pixels import Size
from avsbench_harness.data.transforms import Pixels
from avsbench_harness.engine.acceleration import accelerate
from avsbench_harness.engine.contract import check_values, rounding
from avsbench_harness.engine.load_weights import load_weights_strict
from avsbench_harness.engine.predict import Masks, to_masks
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.system import autocast, build_system
from avsbench_harness.errors import UsageError, plugin_errors
from avsbench_harness.nn.audio_encoder import build_audio_encoder
from avsbench_harness.tasks import Task
from avsbench_harness.video.frames import frames_at, read_frames
from avsbench_harness.video.media import Damage, Media
from avsbench_harness.video.probe import probe
from avsbench_harness.video.sound import SoundReader
from avsbench_harness.video.windows import Timeline, Window

#: Largest frame, in pixels, at which class scores are computed; labels of larger ones are enlarged.
MAX_SCORED_PIXELS = 2**19

#: Segmenter in place of the authors' maskiges, which exist for their data alone.
DEFAULT_SEGMENTER = "felzenszwalb"


@dataclass(frozen=True)
class FrameInput:
    """A frame at the size of the network input.

    Attributes:
        image: (h,w,3) uint8 RGB.
        maskige: (h,w,3) uint8 RGB, for methods that take maskiges.
        content: (width, height) of the frame in the network input.
        size: (height, width) of the original frame.
    """

    image: NDArray[np.uint8]
    maskige: NDArray[np.uint8] | None
    content: tuple[int, int]
    size: tuple[int, int]


@dataclass(frozen=True)
class FramePrediction:
    """The prediction for one frame of a video.

    Attributes:
        index: number of the prediction.
        time: of the frame, seconds.
        shown: interval in which it is the nearest prediction, seconds.
        mask: (H,W) uint8 at the size of the frame: 1 for sounding objects, or class indices (avss).
        padded: whether it is from a window with padded frames.
    """

    index: int
    time: float
    shown: tuple[float, float]
    mask: NDArray[np.uint8]
    padded: bool


class Predictor:
    """A trained network with its preprocessing; ``avsbench_harness.load`` makes one.

    Args:
        run: a run whose data set is not used.
        state: its weights, under the names of its system.
        weights: SHA-256 of their file.

    Raises:
        UsageError: the weights do not fit.
    """

    def __init__(self, run: Run, state: dict[str, Tensor], weights: str) -> None:
        self.run, self.weights = run, weights
        self.device = run.device
        with torch.random.fork_rng(devices=[]):  # building a network seeds torch
            system = build_system(run, pretrained=False)
        load_weights_strict(system, state)
        self._system = accelerate(system.to(self.device), run.recipe).eval()
        self._encoder = None
        if not run.spec.audio.trained:
            self._encoder = build_audio_encoder(run.spec.audio.encoder, run.weights["audio"])
            self._encoder.eval().to(self.device)

    def __repr__(self) -> str:
        return f"Predictor({self.run.spec.method} for {self.task.name} with {self.run.spec.backbone})"

    @property
    def task(self) -> Task:
        """The task."""
        return self.run.task

    def predict(
        self,
        frames: NDArray[np.uint8],
        waveform: NDArray[Any] | None = None,
        rate: int = SAMPLE_RATE,
        *,
        threshold: float = 0.5,
    ) -> NDArray[np.uint8]:
        """Return the masks (t,H,W) of frames, one per second: 1 for sounding objects, or classes (avss).

        Longer input is cut into clips of the task's length, 5 or 10 s.

        Args:
            frames: (t,H,W,3) uint8 RGB.
            waveform: (n,) or (n,channels), int16 or floating point in [-1, 1], from the beginning of the
                first second on; ``None`` for silence.
            rate: samples per second.
            threshold: probability above which a pixel is foreground (s4, ms3).

        Raises:
            UsageError: a shape or type is wrong.
        """
        found = [
            self.masks(prediction, frames.shape[1:3], threshold)
            for prediction in self._clips(_checked_frames(frames), waveform, rate)
        ]
        return np.concatenate(found)

    def scores(
        self,
        frames: NDArray[np.uint8],
        waveform: NDArray[Any] | None = None,
        rate: int = SAMPLE_RATE,
        *,
        side: int | tuple[int, int] | None = None,
    ) -> Masks:
        """Return what a submission holds for the frames: probabilities (t,H,W), or class indices (avss).

        Args:
            frames, waveform, rate: as for :meth:`predict`.
            side: height and width of the masks, or both as (H,W); defaults to the size of the frames.
        """
        size = side or (frames.shape[1], frames.shape[2])
        found: list[Any] = [
            to_masks(prediction, self.task, size)
            for prediction in self._clips(_checked_frames(frames), waveform, rate)
        ]
        joined: Masks = np.concatenate(found)
        return joined

    def predict_video(
        self, path: Path | str, *, fps: int = 1, overlap: int = 0, threshold: float = 0.5
    ) -> Iterator[FramePrediction]:
        """Yield the predictions of a video window by window; memory does not depend on its length.

        With ``fps`` above 1 or ``overlap``, predictions come in the order of their windows.

        Args:
            path: a file that FFmpeg reads.
            fps: predictions per second, see :mod:`avsbench_harness.video.windows`.
            overlap: of consecutive windows, seconds.
            threshold: as for :meth:`predict`.

        Raises:
            UsageError: the file cannot be read, or an option is out of range.
        """
        media = probe(Path(path))
        timeline = Timeline(media.seconds, fps, self.task.frames, overlap)
        for window, prediction in self.predict_windows(media, timeline):
            masks = self.masks(prediction[list(window.kept)], (media.height, media.width), threshold)
            for second, mask in zip(window.kept, masks, strict=True):
                index = window.first + second * fps
                start, end = timeline.shown(index)
                yield FramePrediction(
                    index, float(timeline.time(index)), (float(start), float(end)), mask, window.padded
                )

    def predict_windows(
        self,
        media: Media,
        timeline: Timeline,
        *,
        skip: Callable[[Window], bool] = lambda window: False,
        damage: Damage | None = None,
    ) -> Iterator[tuple[Window, Tensor]]:
        """Yield each window of a video with the prediction of its valid seconds, see :meth:`predict_clip`.

        Args:
            media: the video.
            timeline: its windows.
            skip: windows that are left out.
            damage: counts the parts of the file that cannot be decoded.
        """
        windows = [window for window in timeline.windows() if not skip(window)]
        sound = SoundReader(media, 2 * timeline.length, damage)
        times = map(timeline.time, range(timeline.count))
        recent: deque[tuple[int, FrameInput]] = deque(maxlen=timeline.length * timeline.fps)
        waiting = iter(windows)
        window = next(waiting, None)
        for index, pixels in enumerate(frames_at(read_frames(media, damage), times)):
            if window is None:
                return
            if index > window.last(timeline.fps) - timeline.length * timeline.fps:
                recent.append((index, self.prepare(pixels())))
            while window is not None and index == window.last(timeline.fps):
                inputs = dict(recent)
                frames = [inputs[window.first + second * timeline.fps] for second in range(window.seconds)]
                rate = sound.rate or SAMPLE_RATE
                samples = sound.read(round(window.start * rate), window.seconds * rate)
                where = f"{media.path} at {float(window.start):g} s"
                yield window, self.predict_clip(frames, samples, rate, where=where)
                window = next(waiting, None)

    def prepare(self, pixels: NDArray[np.uint8]) -> FrameInput:
        """Resize a frame (H,W,3) for the network as the recipe does in evaluation."""
        recipe, height, width = self.run.recipe, *pixels.shape[:2]
        content = (recipe.image_size, recipe.image_size)
        if recipe.fit == "pad":
            content = content_size(width, height, recipe.image_size)
        size: Size = content
        maskige = None
        if self._segmenter is not None:
            maskige = fit_maskige(draw_maskige(pixels, self._segmenter), size)
        return FrameInput(fit_frame(Image.fromarray(pixels), size), maskige, content, (height, width))

    def predict_clip(
        self,
        frames: Sequence[FrameInput],
        samples: NDArray[np.float64],
        rate: int,
        *,
        where: str = "the frames",
    ) -> Tensor:
        """Return the prediction of one clip without padding: (t,h,w) probabilities or (t,C,h,w) class scores.

        Args:
            frames: at most as many as the task's clips have, of one size.
            samples: (n,) mono in [-1, 1].
            rate: samples per second.
            where: the frames in words, for errors.
        """
        task, recipe, size = self.task, self.run.recipe, self.run.recipe.image_size
        maskiges = [frame.maskige for frame in frames if frame.maskige is not None]
        images = _channels_first([frame.image for frame in frames])
        pixels = Pixels(
            images, images[:, 0], _channels_first(maskiges) if maskiges else None
        )  # the masks are not used
        inputs = {
            name: pad_frames(value, task.frames) for name, value in network_inputs(pixels, size).items()
        }
        batch = Batch(
            images=inputs["images"][None],
            audio=torch.from_numpy(self._audio(samples, rate, len(frames)))[None],
            valid=pad_frames(torch.ones(len(frames), dtype=torch.bool), task.frames)[None],
            maskige=inputs["maskige"][None] if maskiges else None,
        )
        with (
            autocast(recipe.precision, self.device),
            plugin_errors(f"The network of {self.run.spec.method} failed"),
        ):
            prediction = self._system.predict(batch.to(self.device))[0, : len(frames)]
        cropped = remove_padding(prediction, frames[0].content, size)
        tolerance = rounding(recipe.precision)
        check_values(cropped, task, self.run.spec.method, where=where, tolerance=tolerance)
        return cropped

    def masks(self, prediction: Tensor, size: tuple[int, ...], threshold: float = 0.5) -> NDArray[np.uint8]:
        """Return the masks (t,H,W) of a prediction at the size (H,W) of the frames.

        Class scores are computed at up to :data:`MAX_SCORED_PIXELS` pixels; labels of larger frames are
        enlarged by NEAREST.
        """
        height, width = size
        if not self.task.semantic:
            return (to_masks(prediction, self.task, (height, width)) > threshold).astype(np.uint8)
        shrink = max(1.0, (height * width / MAX_SCORED_PIXELS) ** 0.5)
        scored = max(1, round(height / shrink)), max(1, round(width / shrink))
        labels = [to_masks(one[None], self.task, scored)[0].astype(np.uint8) for one in prediction]
        return np.stack([resize_mask(one, (width, height)) for one in labels])

    def _audio(self, samples: NDArray[np.float64], rate: int, frames: int) -> NDArray[np.float32]:
        """A clip's audio input: embeddings (T,128), or log-mels (T,1,96,64) if the encoder was trained."""
        log_mel = separated(waveform_log_mel(samples, rate, self.task), self.run.recipe.audio.separator)
        if self._encoder is None:
            return log_mel
        return embed_log_mel(self._encoder, log_mel, frames, self.device)

    def _clips(self, frames: NDArray[np.uint8], waveform: NDArray[Any] | None, rate: int) -> Iterator[Tensor]:
        """The predictions of consecutive clips; sound that is missing is silence."""
        samples = np.zeros(0) if waveform is None else _mono(waveform)
        for start in range(0, len(frames), self.task.frames):
            part = frames[start : start + self.task.frames]
            own = samples[start * rate : (start + len(part)) * rate]
            own = np.pad(own, (0, len(part) * rate - len(own)))
            yield self.predict_clip([self.prepare(frame) for frame in part], own, rate)

    @cached_property
    def _segmenter(self) -> Callable[[NDArray[np.uint8]], NDArray[np.bool_]] | None:
        """The segmenter of maskiges; ``None`` if the network takes none."""
        source = self.run.recipe.maskige
        return None if source is None else SEGMENTERS.get(source, SEGMENTERS[DEFAULT_SEGMENTER])

    @property
    def remark(self) -> str:
        """A sentence on input that differs from that of the training; empty if there is none."""
        source = self.run.recipe.maskige
        if source is None or source in SEGMENTERS:
            return ""
        return (
            f"The network was trained with maskiges of the source {source}; here they are made by "
            f"{DEFAULT_SEGMENTER}, so that masks may be worse."
        )


def _checked_frames(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise UsageError(f"frames must be (t,H,W,3) uint8, got {frames.shape} {frames.dtype}.")
    return frames


def _mono(waveform: NDArray[Any]) -> NDArray[np.float64]:
    """Samples (n,) in [-1, 1] as :func:`.waveform.read_audio` gives them for a recording."""
    if waveform.ndim not in (1, 2) or waveform.dtype.kind not in "fi":
        raise UsageError(
            f"waveform must be (n,) or (n,channels), int16 or floating point, got {waveform.shape} "
            f"{waveform.dtype}."
        )
    scale = 32768.0 if waveform.dtype.kind == "i" else 1.0
    samples = waveform.astype(np.float64) / scale
    samples = samples.mean(axis=1) if samples.ndim == 2 else samples
    if not np.isfinite(samples).all():
        raise UsageError("waveform has samples that are NaN or infinite.")
    return np.clip(samples, -1.0, 1.0)


def _channels_first(frames: Sequence[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()
