"""Log-mel examples and audio embeddings of clips, computed once and kept in the cache.

Keys contain the hash of the recording and everything else that determines the values: a changed file, other
weights or a new version of the code never gives old values. The arrays are read from the cache when they are
accessed, because those of a large data set do not fit into memory.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from avsbench_harness.data.audio.changes import Change
from avsbench_harness.data.audio.logmel import FRONT_END_VERSION, audio_file, clip_log_mel, length_rule
from avsbench_harness.data.audio.separation import NO_SEPARATOR, SEPARATORS, separate
from avsbench_harness.data.cache.eviction import make_room
from avsbench_harness.data.cache.store import ArrayStore, StoredArrays, array_key
from avsbench_harness.data.clip import Clip
from avsbench_harness.files import cache_dir, sha256_file
from avsbench_harness.tasks import Task

logger = logging.getLogger(__name__)

#: Changes whenever an encoder's code changes the embeddings it computes; part of the cache key.
ENCODER_VERSION = 1

# Clips whose recordings are decoded in parallel before their embeddings are computed.
_CHUNK = 64

# Problems of recordings that are logged; the others are counted.
_LOGGED = 5

Array: TypeAlias = NDArray[np.float32]
Progress: TypeAlias = Callable[[int], None]
Result = TypeVar("Result")


def log_mel_clips(
    clips: Sequence[Clip],
    task: Task,
    progress: Progress | None = None,
    separator: str = NO_SEPARATOR,
    change: Change | None = None,
) -> StoredArrays:
    """Return log-mel examples per clip id, float32 (T,1,96,64), for runs that train the audio encoder.

    Args:
        clips: clips of one task.
        task: determines T and the padding of short recordings.
        progress: called with the number of clips done since the last call.
        separator: name of a separator (``data.audio.separation``); the shape is then (T,S,1,96,64).
        change: changes the recordings before the front end.

    Raises:
        MissingDataError: a clip has no audio on disk.
        UsageError: a recording cannot be read.
    """
    how = _Front(task, separator, change)
    store = how.open("log-mels")

    def key(clip: Clip) -> str:
        return array_key(audio=_audio_hash(clip), **how.key(clip))

    return _fill(store, clips, how, key, lambda clip, log_mel: log_mel, progress)


def embed_clips(
    clips: Sequence[Clip],
    task: Task,
    encoder: nn.Module,
    weights_sha: str,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    separator: str = NO_SEPARATOR,
    change: Change | None = None,
) -> StoredArrays:
    """Return embeddings per clip id, float32 (T,128), of a frozen encoder.

    Padded frames are zero (the published avss models multiply by that mask). The encoder processes one clip
    at a time, so that a clip's bits do not depend on which other clips are cached. It is left on ``device``,
    in its original mode.

    Args:
        clips: clips of one task.
        task: determines T and the padding of short recordings.
        encoder: (N,1,96,64) to (N,128).
        weights_sha: SHA-256 of the encoder's weights file.
        device: device of the encoder.
        progress: called with the number of clips done since the last call.
        separator: name of a separator (``data.audio.separation``); the shape is then (T,S,128).
        change: changes the recordings before the front end.

    Raises:
        MissingDataError: a clip has no audio on disk.
        UsageError: a recording cannot be read.
    """
    name = f"{type(encoder).__name__}-{ENCODER_VERSION}"
    how = _Front(task, separator, change)
    store = how.open("embeddings", encoder=name, weights=weights_sha)

    def key(clip: Clip) -> str:
        return array_key(audio=_audio_hash(clip), frames=len(clip.frames), **how.key(clip))

    def embed(clip: Clip, log_mel: Array) -> Array:
        return embed_log_mel(encoder, log_mel, len(clip.frames), device)

    training = encoder.training
    encoder.eval().to(device)
    try:
        return _fill(store, clips, how, key, embed, progress)
    finally:
        encoder.train(training)


@dataclass(frozen=True)
class _Front:
    """The steps from a recording to its log-mel examples."""

    task: Task
    separator: str
    change: Change | None

    def open(self, kind: str, **parts: str) -> ArrayStore:
        """Open the collection of all arrays that are computed in the same way."""
        frames = self.task.frames
        if self.separator != NO_SEPARATOR:
            parts["separator"] = f"{self.separator}-{SEPARATORS[self.separator].version}"
        if self.change is not None:
            parts["change"] = self.change.label
        key = array_key(frames=frames, front_end=FRONT_END_VERSION, length=length_rule(self.task), **parts)
        return ArrayStore(cache_dir() / kind / f"{frames}-frames-{key[:16]}")

    def key(self, clip: Clip) -> dict[str, str]:
        """Everything beside the clip's own recording that determines its array in the collection."""
        if self.change is None or self.change.kind in ("silence", "shifted"):
            return {}
        if self.change.kind == "mixed":
            return {"other": _audio_hash(self.change.others[clip.id])}
        return {"clip": clip.id}

    def log_mel(self, clip: Clip, problems: list[str]) -> Array:
        """A clip's log-mel examples (T,1,96,64), or those of its sources (T,S,1,96,64)."""
        # Problems are reported once, of the recordings as they are.
        noted = problems if self.change is None else None
        return separated(clip_log_mel(clip, self.task, noted, self.change), self.separator)


def _fill(
    store: ArrayStore,
    clips: Sequence[Clip],
    how: _Front,
    key_of: Callable[[Clip], str],
    finish: Callable[[Clip, Array], Array],
    progress: Progress | None,
) -> StoredArrays:
    """Compute the arrays that are missing or damaged, by ``finish`` from the log-mel examples of a clip.

    The problem of a recording, if any, is stored beside its array, so that it is logged by every run.
    """

    def lookup(clip: Clip) -> tuple[str, Array | None]:
        """Return the clip's key, and its log-mel examples if its array has to be computed."""
        key, label = key_of(clip), f"The audio of clip {clip.id}"
        note = array_key(problem_of=key, frames=len(clip.frames))
        noted: list[str] = []
        log_mel = None
        if store.load(key, label) is None:
            log_mel = how.log_mel(clip, noted)
            if noted:
                store.store(note, np.frombuffer(noted[0].encode(), np.uint8))
        elif (stored := store.load(note, label)) is not None:
            noted = [stored.tobytes().decode()]
        problems.extend(f"{audio_file(clip)} {problem}." for problem in noted)
        return key, log_mel

    problems: list[str] = []
    keys: dict[str, str] = {}
    shortage = None
    for chunk, results in _in_threads(lookup, clips):
        room = make_room(sum(log_mel.nbytes for _, log_mel in results if log_mel is not None))
        if room is not None and shortage is None:
            logger.warning(f"{room} The audio is stored nevertheless.")
            shortage = room
        for clip, (key, log_mel) in zip(chunk, results, strict=True):
            if log_mel is not None:
                store.store(key, finish(clip, log_mel))
            keys[clip.id] = key
            if progress is not None:
                progress(1)
    for problem in sorted(problems)[:_LOGGED]:
        logger.warning(problem)
    if len(problems) > _LOGGED:
        logger.warning(
            f"{len(problems) - _LOGGED} more recordings have such problems; `avsb data check` lists them."
        )
    return StoredArrays(store, keys)


def embed_log_mel(encoder: nn.Module, log_mel: Array, frames: int, device: torch.device | str) -> Array:
    """Return the embeddings (T,128) of one clip's log-mel examples (T,1,96,64), as :func:`embed_clips` does.

    Args:
        encoder: in evaluation mode on ``device``.
        log_mel: the examples, with an axis of sources after the first if sources are separated.
        frames: number of valid frames; the embeddings of the others are zero.
        device: of the encoder.
    """
    with torch.inference_mode():
        examples = torch.from_numpy(log_mel).to(device)
        found: torch.Tensor = encoder(examples.flatten(0, -4))
    embedding = np.array(found.float().view(*log_mel.shape[:-3], -1).cpu().numpy())
    embedding[frames:] = 0.0
    return embedding


def separated(examples: Array, separator: str) -> Array:
    """Return log-mel examples (T,1,96,64), or those of their sources (T,S,1,96,64)."""
    return examples if separator == NO_SEPARATOR else separate(examples, separator)


def _audio_hash(clip: Clip) -> str:
    """SHA-256 of the file with the clip's audio, a recording or a log-mel pickle."""
    return sha256_file(audio_file(clip))


def _in_threads(
    function: Callable[[Clip], Result], clips: Iterable[Clip]
) -> Iterator[tuple[list[Clip], list[Result]]]:
    """Yield results in chunks; audio decoding and the front end mostly run without the interpreter's lock."""
    remaining = iter(clips)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        while chunk := list(islice(remaining, _CHUNK)):
            yield chunk, list(pool.map(function, chunk))
