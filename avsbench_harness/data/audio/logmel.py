"""The VGGish front end: log-mel examples of 16 kHz samples, and the ``T`` examples of a clip.

Hershey et al., "CNN Architectures for Large-Scale Audio Classification" (ICASSP 2017), with the constants of
the published code that all methods of this benchmark use. Example ``i`` covers ``i * 0.96`` to
``i * 0.96 + 0.975`` s, which is not second ``i``: the end of a 5 s clip is not used.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.data.audio.changes import Change
from avsbench_harness.data.audio.waveform import (
    SAMPLE_RATE,
    find_damage,
    find_wrong_length,
    read_audio,
    to_16k,
)
from avsbench_harness.data.clip import Clip
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.safe_pickle import read_float_tensor
from avsbench_harness.tasks import Task

#: Changes whenever the values that this module computes change; part of every cache key.
FRONT_END_VERSION = 1

WINDOW, HOP, FFT = 400, 160, 512  # 25 ms, 10 ms, next power of two, in samples
BANDS, LOW_HZ, HIGH_HZ = 64, 125.0, 7500.0
LOG_OFFSET = 0.01
EXAMPLE_FRAMES = 96  # 0.96 s

#: Samples of one example: 96 windows, 10 ms apart.
EXAMPLE_SAMPLES = (EXAMPLE_FRAMES - 1) * HOP + WINDOW

#: Maximum number of examples in a published pickle; AVSBench's have 5 (objects) or 10 (semantic).
_MAX_PICKLED = 64

_NO_RECORDING = "Clip '{clip}' has a log-mel pickle but no recording, which '{kind}' audio needs; add it."

# Rounding of published pickles, some of which were computed in float32.
_TOLERANCE = 1e-3


def _hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """The HTK mel scale."""
    return 1127.0 * np.log1p(hz / 700.0)


@cache
def mel_matrix() -> NDArray[np.float64]:
    """Return the weights (257,64) from the bins of a magnitude spectrum to mel bands.

    Triangles are linear in mel (not in Hz), have height 1 (not area 1), and leave out the constant bin.
    """
    bins = _hz_to_mel(np.linspace(0.0, SAMPLE_RATE / 2, FFT // 2 + 1))[:, None]
    low, high = _hz_to_mel(np.array([LOW_HZ, HIGH_HZ]))
    edges = np.linspace(low, high, BANDS + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins - lower) / (centre - lower)
    falling = (upper - bins) / (upper - centre)
    weights: NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    weights[0] = 0.0
    weights.flags.writeable = False
    return weights


def log_mel_examples(
    samples_16k: NDArray[np.floating], max_examples: int | None = None
) -> NDArray[np.float32]:
    """Return log-mel examples (n,1,96,64) of mono samples in [-1, 1] at 16 kHz.

    Windows of 25 ms every 10 ms without padding or centring, periodic Hann, magnitude spectrum, 64 mel
    bands, ``log(mel + 0.01)``; digital silence is -4.605. Samples after the last whole example are dropped,
    so a recording under 0.975 s gives n = 0. Everything is float64 until the last cast.

    Args:
        samples_16k: (samples,).
        max_examples: maximum number of examples.
    """
    samples = np.asarray(samples_16k, dtype=np.float64)
    frames = max(0, 1 + (len(samples) - WINDOW) // HOP)
    count = frames // EXAMPLE_FRAMES
    if max_examples is not None:
        count = min(count, max_examples)
    if count == 0:
        return np.zeros((0, 1, EXAMPLE_FRAMES, BANDS), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP][: count * EXAMPLE_FRAMES]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi / WINDOW * np.arange(WINDOW))
    magnitude = np.abs(np.fft.rfft(windows * hann, FFT))
    log_mel = np.log(magnitude @ mel_matrix() + LOG_OFFSET)
    return log_mel.reshape(count, 1, EXAMPLE_FRAMES, BANDS).astype(np.float32)


def audio_file(clip: Clip) -> Path:
    """Return the file with a clip's audio: the recording, else the published pickle.

    Raises:
        MissingDataError: the clip has neither, or the file does not exist.
    """
    path = clip.audio or clip.logmel
    if path is None:
        raise MissingDataError(f"Clip '{clip.id}' has neither a recording nor a log-mel pickle.")
    if not path.is_file():
        raise MissingDataError(f"Clip '{clip.id}': there is no file {path}.")
    return path


def length_rule(task: Task) -> str:
    """Return the name of the rule by which :func:`clip_log_mel` pads short clips; part of every cache key."""
    return f"{'zeros' if task.semantic else 'repeat'}-{task.frames}"


def clip_log_mel(
    clip: Clip, task: Task, problems: list[str] | None = None, change: Change | None = None
) -> NDArray[np.float32]:
    """Return a clip's log-mel examples (T,1,96,64), ``T = task.frames``, from its recording or pickle.

    If there are too few examples, in s4 and ms3 the last one is repeated, as in AVSBench's pickles; in avss
    zeros are appended (zeros, not the -4.605 of silence), as in the published loader. In s4 and ms3 a
    recording shorter than one example (0.975 s), on which the published script fails, is padded with silence.
    If there are too many, the first T are kept, where the published scripts raise an error.

    Args:
        clip: a clip of the task.
        task: determines T and the padding.
        problems: a list to which the end of a sentence is added if the recording is probably damaged, or
            much shorter or longer than the clip.
        change: changes the recording before the front end.

    Raises:
        MissingDataError: the clip has no audio on disk, or only a pickle and the change needs a recording.
        UsageError: the file is not a valid recording or pickle.
    """
    path = audio_file(clip)
    if clip.audio is not None:
        samples, rate = read_audio(path)
        if problems is not None:
            problem = find_damage(path, samples) or find_wrong_length(samples, rate, len(clip.frames))
            problems += [problem] if problem else []
        samples = to_16k(samples, rate)
        if change is not None:
            other = _samples_16k(change.others[clip.id]) if change.kind == "mixed" else None
            samples = change.apply(samples, clip.id, other)
        return _pad_examples(_recorded_examples(samples, task), task)
    examples = read_log_mel_pickle(path)[: task.frames]
    if change is not None:
        if change.kind != "silence":
            raise MissingDataError(_NO_RECORDING.format(clip=clip.id, kind=change.kind))
        examples = log_mel_examples(np.zeros(len(examples) * EXAMPLE_SAMPLES), len(examples))
    return _pad_examples(examples, task)


def waveform_log_mel(samples: NDArray[np.float64], rate: int, task: Task) -> NDArray[np.float32]:
    """Return the log-mel examples (T,1,96,64) of a clip's recording, padded as :func:`clip_log_mel` does.

    Args:
        samples: (n,) mono, in [-1, 1].
        rate: samples per second.
        task: determines T and the padding.
    """
    return _pad_examples(_recorded_examples(to_16k(samples, rate), task), task)


def _pad_examples(examples: NDArray[np.float32], task: Task) -> NDArray[np.float32]:
    missing = task.frames - len(examples)
    if missing == 0:
        return examples
    filler = np.zeros_like(examples, shape=(1, *examples.shape[1:])) if task.semantic else examples[-1:]
    return np.concatenate([examples, np.repeat(filler, missing, axis=0)])


def _samples_16k(clip: Clip) -> NDArray[np.float64]:
    """The samples of a clip's recording at 16 kHz."""
    if clip.audio is None:
        raise MissingDataError(_NO_RECORDING.format(clip=clip.id, kind="mixed"))
    return to_16k(*read_audio(audio_file(clip)))


def _recorded_examples(samples: NDArray[np.float64], task: Task) -> NDArray[np.float32]:
    """Up to T examples of a recording at 16 kHz; in s4 and ms3 at least one."""
    if not task.semantic and len(samples) < EXAMPLE_SAMPLES:
        samples = np.pad(samples, (0, EXAMPLE_SAMPLES - len(samples)))
    return log_mel_examples(samples, task.frames)


def read_log_mel_pickle(path: Path) -> NDArray[np.float32]:
    """Read the log-mel examples (n,1,96,64) of one of AVSBench's ``audio_log_mel/*.pkl``, without unpickling.

    Raises:
        UsageError: the file is not a finite float tensor of that shape with 1 <= n <= 64, or has values that
            the VGGish front end cannot compute.
    """
    examples = read_float_tensor(path, (None, 1, EXAMPLE_FRAMES, BANDS), max_rows=_MAX_PICKLED)
    if not np.isfinite(examples).all():
        raise UsageError(f"{path} has values that are NaN or infinite; make it again or use the recording.")
    fault = _foreign_values(examples)
    if fault is not None:
        raise UsageError(
            f"{path} was made by another front end than VGGish's log(mel + 0.01): {fault}; make it again or "
            "use the recording."
        )
    return examples


def _foreign_values(examples: NDArray[np.float32]) -> str | None:
    """The values of log-mel examples that the VGGish front end cannot compute, ``None`` if there are none.

    Its values lie between log 0.01, that of digital silence, and that of a full-scale sample in every window.
    Examples of zeros are padding.
    """
    floor = np.log(LOG_OFFSET)
    ceiling = np.log(WINDOW / 2 * mel_matrix().sum(axis=0).max() + LOG_OFFSET)  # WINDOW / 2: sum of Hann
    values = examples[examples.any(axis=(1, 2, 3))]
    if not values.size:
        return None
    low, high = float(values.min()), float(values.max())
    if low < floor - _TOLERANCE:
        return f"its lowest value is {low:.3f}, below {floor:.3f}"
    if high > ceiling + _TOLERANCE:
        return f"its highest value is {high:.3f}, above {ceiling:.3f}"
    level = values[..., 0]  # of windows with equal values in all bands, which only silence has
    silent = (values == values[..., :1]).all(axis=-1) & (np.abs(level - floor) > _TOLERANCE)
    if silent.any():
        return f"silence has the value {float(level[silent][0]):.3f} instead of {floor:.3f}"
    return None
