"""The sound of clips as arrays, computed once and kept on disk: log-mel examples, and their embeddings.

Both caches are keyed by the bytes of the recording and by everything else that decides the numbers, so a
changed file, other weights or a new version of the code is never answered with old values. The results are
read from the cache when they are asked for: those of a large data set do not fit into memory.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from avsbench_harness.data.audio.logmel import (
    BANDS,
    EXAMPLE_FRAMES,
    FRONT_END_VERSION,
    clip_log_mel,
    length_rule,
    sound_file,
)
from avsbench_harness.data.audio.separation import NO_SEPARATOR, SEPARATORS, separate
from avsbench_harness.data.cache.arrays import ArrayCache, StoredArrays, array_key
from avsbench_harness.data.clip import Clip
from avsbench_harness.files import cache_dir, sha256_file
from avsbench_harness.nn.vggish import EMBEDDING_SIZE
from avsbench_harness.tasks import Task

logger = logging.getLogger(__name__)


#: Changes whenever an encoder's code changes the embeddings it computes; part of the cache key.
ENCODER_VERSION = 1

# Clips whose recordings are decoded in parallel before their embeddings are computed.
_CHUNK = 64

Progress = Callable[[int], None]
Result = TypeVar("Result")


def log_mel_clips(
    clips: Sequence[Clip],
    task: Task,
    progress: Progress | None = None,
    separator: str = NO_SEPARATOR,
) -> StoredArrays:
    """Log-mel examples per clip id, float32 (T,1,96,64), for runs that train the audio encoder.

    See :func:`avsbench_harness.data.audio.logmel.clip_log_mel`. ``progress`` is called with the number of
    clips done since the last call. With a separator (``data.separation``) those of S sources, (T,S,1,96,64).

    Raises:
        MissingDataError: a clip has no sound on disk.
        UsageError: a recording cannot be read.
    """
    cache = ArrayCache(
        cache_dir() / "log-mels", (task.frames, *_sources(separator), 1, EXAMPLE_FRAMES, BANDS)
    )

    def make(clip: Clip) -> str:
        key = array_key(
            sound=_sound_hash(clip),
            front_end=FRONT_END_VERSION,
            length=length_rule(task),
            **_separation_key(separator),
        )
        cache.get(key, lambda: _log_mel(clip, task, separator))
        return key

    keys = {}
    for chunk, made in _in_threads(make, clips):
        for clip, key in zip(chunk, made, strict=True):
            keys[clip.id] = key
            _report(progress)
    return StoredArrays(cache, keys)


def embed_clips(
    clips: Sequence[Clip],
    task: Task,
    encoder: nn.Module,
    weights_sha: str,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    separator: str = NO_SEPARATOR,
) -> StoredArrays:
    """Embeddings per clip id, float32 (T,128), from a frozen encoder.

    Rows of frames that a clip does not have are zero (the published avss models multiply by that flag).
    The encoder sees one clip at a time, so that a clip's bits do not depend on which others were missing in
    the cache; it comes back on ``device``, in the mode it was in.

    Args:
        clips: of one task.
        task: decides T and how short recordings are filled up.
        encoder: (N,1,96,64) to (N,128).
        weights_sha: SHA-256 of the encoder's weights file.
        device: where the encoder runs.
        progress: called with the number of clips done since the last call.
        separator: a name in ``data.separation``; the result is then that of S sources, (T,S,128).

    Raises:
        MissingDataError: a clip has no sound on disk.
        UsageError: a recording cannot be read.
    """
    cache = ArrayCache(cache_dir() / "embeddings", (task.frames, *_sources(separator), EMBEDDING_SIZE))

    def lookup(clip: Clip) -> tuple[str, NDArray[np.float32] | None]:
        """The clip's key, and its log-mel examples if the cache does not have its embeddings."""
        key = array_key(
            sound=_sound_hash(clip),
            weights=weights_sha,
            encoder=f"{type(encoder).__name__}-{ENCODER_VERSION}",
            front_end=FRONT_END_VERSION,
            length=length_rule(task),
            frames=len(clip.frames),
            **_separation_key(separator),
        )
        return key, None if cache.load(key) is not None else _log_mel(clip, task, separator)

    training = encoder.training
    encoder.eval().to(device)
    keys = {}
    try:
        for chunk, results in _in_threads(lookup, clips):
            for clip, (key, log_mel) in zip(chunk, results, strict=True):
                if log_mel is not None:
                    embedding = _embed(encoder, log_mel, device)
                    embedding[len(clip.frames) :] = 0.0
                    cache.store(key, embedding)
                keys[clip.id] = key
                _report(progress)
    finally:
        encoder.train(training)
    return StoredArrays(cache, keys)


def _embed(
    encoder: nn.Module, log_mel: NDArray[np.float32], device: torch.device | str
) -> NDArray[np.float32]:
    with torch.inference_mode():
        examples = torch.from_numpy(log_mel).to(device)
        embedding: torch.Tensor = encoder(examples.flatten(0, -4))
    return np.array(embedding.float().view(*log_mel.shape[:-3], -1).cpu().numpy())


def _log_mel(clip: Clip, task: Task, separator: str) -> NDArray[np.float32]:
    """A clip's log-mel examples (T,1,96,64), or those of its sources (T,S,1,96,64)."""
    examples = clip_log_mel(clip, task)
    return examples if separator == NO_SEPARATOR else separate(examples, separator)


def _sources(separator: str) -> tuple[int, ...]:
    """The axis of sources that a separator adds to the arrays, if it does."""
    return () if separator == NO_SEPARATOR else (SEPARATORS[separator].sources,)


def _separation_key(separator: str) -> dict[str, str]:
    """What a separator adds to a cache key."""
    if separator == NO_SEPARATOR:
        return {}
    return {"separator": f"{separator}-{SEPARATORS[separator].version}"}


def _sound_hash(clip: Clip) -> str:
    """SHA-256 of the file that the clip's sound comes from; recordings and pickles are told apart by it."""
    return sha256_file(sound_file(clip))


def _in_threads(
    function: Callable[[Clip], Result], clips: Iterable[Clip]
) -> Iterator[tuple[list[Clip], list[Result]]]:
    """Results chunk by chunk: decoding and the front end release the interpreter most of the time."""
    remaining = iter(clips)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        while chunk := list(islice(remaining, _CHUNK)):
            yield chunk, list(pool.map(function, chunk))


def _report(progress: Progress | None) -> None:
    if progress is not None:
        progress(1)
