"""Decoded clips and audio in the cache: filled before a run reads them, or by a command of its own."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

from avsbench_harness.console import counter
from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.data.cache.audio import embed_clips, log_mel_clips
from avsbench_harness.data.cache.decoded import DecodedClips
from avsbench_harness.data.clip_source import ClipSource, FileDecoder
from avsbench_harness.engine.inputs import audio_progress, maskige_paths
from avsbench_harness.engine.interrupt import StopRequest
from avsbench_harness.errors import AvsbError, unknown
from avsbench_harness.files import sha256_file
from avsbench_harness.nn.audio_encoder import build_audio_encoder
from avsbench_harness.recipe.schema import Fit
from avsbench_harness.tasks import Split
from avsbench_harness.weights.store import find

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClipCacheResult:
    """The result of :func:`cache_clips`.

    Attributes:
        split: the split.
        clips: number of its clips.
        decoded: number of clips that were decoded by this call; the others were cached.
        bytes: bytes written for these.
        folder: the collection's folder.
    """

    split: Split
    clips: int
    decoded: int
    bytes: int
    folder: str

    @property
    def sentence(self) -> str:
        """The result as one line of text."""
        return (
            f"{self.split}: {self.decoded} of {self.clips} clips decoded, {self.bytes / 1e6:.1f} MB written "
            f"to {self.folder}"
        )

    def to_json(self) -> dict[str, Any]:
        """The attributes."""
        return asdict(self)


@dataclass(frozen=True)
class AudioCacheResult:
    """The result of :func:`cache_audio`.

    Attributes:
        split: the split.
        clips: number of its clips.
        form: ``embeddings`` of the frozen VGGish, or ``log-mels`` for runs that train their audio encoder.
        folder: the collection's folder.
    """

    split: Split
    clips: int
    form: Literal["embeddings", "log-mels"]
    folder: str

    @property
    def sentence(self) -> str:
        """The result as one line of text."""
        return f"{self.split}: audio of {self.clips} clips as {self.form} in {self.folder}"

    def to_json(self) -> dict[str, Any]:
        """The attributes."""
        return asdict(self)


def cache_clips(
    dataset: Dataset, split: Split, size: int, fit: str, maskige: str | None, stop: StopRequest | None = None
) -> ClipCacheResult:
    """Decode a split for runs whose recipe has this image size, fit and source of maskiges.

    Raises:
        UsageError: the fit or the source is unknown.
        MissingDataError: a file or a maskige is missing.
        AvsbError: the cache cannot be written, or there is too little room.
        Interrupted: a stop was requested; the clips decoded so far are kept.
    """
    if fit not in get_args(Fit):
        raise unknown("fit", fit, get_args(Fit))
    clips = dataset.clips(split)
    maskiges = None if maskige is None else maskige_paths(dataset, split, maskige)
    try:
        decoded = DecodedClips(FileDecoder(clips, dataset.task, size, cast(Fit, fit), maskiges))
        shortage = decoded.make_room()
    except OSError as error:
        raise AvsbError(
            f"The cache cannot be written ({error.strerror}); set AVSB_CACHE_DIR to another folder."
        ) from None
    if shortage is not None:
        raise AvsbError(shortage)
    count, written = _fill(decoded, split, stop)
    return ClipCacheResult(split, len(clips), count, written, str(decoded.store.folder))


def cache_audio(dataset: Dataset, split: Split, stop: StopRequest | None = None) -> AudioCacheResult:
    """Compute a split's embeddings if VGGish's weights are in the store, else its log-mels.

    Raises:
        MissingDataError: a clip has no audio on disk.
        UsageError: a recording cannot be read.
        Interrupted: a stop was requested; the arrays computed so far are kept.
    """
    clips, weights = dataset.clips(split), find("vggish")
    with audio_progress(split, len(clips), stop) as advance:
        if weights is None:
            log_mels = log_mel_clips(clips, dataset.task, advance)
            return AudioCacheResult(split, len(clips), "log-mels", str(log_mels.store.folder))
        encoder = build_audio_encoder("vggish", weights)
        embeddings = embed_clips(clips, dataset.task, encoder, sha256_file(weights), progress=advance)
        return AudioCacheResult(split, len(clips), "embeddings", str(embeddings.store.folder))


def cached_source(
    decoder: FileDecoder, split: Split, stop: StopRequest | None = None, *, ahead: bool = True
) -> ClipSource:
    """Return a source that decodes each clip once and reads it from the cache afterwards.

    If the cache cannot be written or there is too little room, log the reason and return ``decoder``.

    Args:
        decoder: decodes the clips.
        split: the split, for the progress bar.
        stop: checked between clips.
        ahead: decode all clips now, in parallel; else each when it is first read.

    Raises:
        Interrupted: a stop was requested; the clips decoded so far are kept.
    """
    try:
        decoded = DecodedClips(decoder)
        shortage = decoded.make_room()
    except OSError as error:
        logger.info(
            f"The cache cannot be written ({error.strerror}); clips are decoded from their files at every "
            "reading."
        )
        return decoder
    if shortage is not None:
        logger.info(f"{shortage} Until then clips are decoded from their files at every reading.")
        return decoder
    if ahead:
        _fill(decoded, split, stop)
    return decoded


def _fill(decoded: DecodedClips, split: Split, stop: StopRequest | None) -> tuple[int, int]:
    """Decode the missing clips with a progress bar; returns their number and bytes."""
    with counter(f"decode {split}", len(decoded.clips)) as step:

        def advance(count: int) -> None:
            if stop:
                raise stop.error("The clips decoded so far are kept; rerun the same command to resume.")
            step(count)

        return decoded.fill(advance)
