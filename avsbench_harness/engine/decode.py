"""Clips and their sound, kept in the cache once: before a run reads them, or by a command of its own."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

from avsbench_harness.console import progress_bar
from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.data.cache.decoded import DecodedClips, FileDecoder
from avsbench_harness.data.loader import ClipDataset
from avsbench_harness.engine.embeddings import embed_clips, log_mel_clips
from avsbench_harness.engine.inputs import hearing, maskige_paths
from avsbench_harness.engine.interrupt import StopRequest
from avsbench_harness.errors import AvsbError, unknown
from avsbench_harness.files import cache_dir, sha256_file
from avsbench_harness.nn.audio_encoder import build_audio_encoder
from avsbench_harness.recipe.schema import Fit
from avsbench_harness.tasks import Split
from avsbench_harness.weights.store import find

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decoded:
    """What decoding a split came to.

    Attributes:
        split: which.
        clips: how many it has.
        decoded: how many were decoded now; the others were there.
        bytes: written for those.
        folder: where they lie.
    """

    split: Split
    clips: int
    decoded: int
    bytes: int
    folder: str

    @property
    def sentence(self) -> str:
        """For people."""
        return (
            f"{self.split}: {self.decoded} of {self.clips} clips decoded, {self.bytes / 1e6:.1f} MB written "
            f"to {self.folder}"
        )

    def to_json(self) -> dict[str, Any]:
        """The attributes."""
        return asdict(self)


def decode_split(
    dataset: Dataset, split: Split, size: int, fit: str, maskige: str | None, stop: StopRequest | None = None
) -> Decoded:
    """Decode a split for runs whose recipe has this image size, fit and source of maskiges.

    Raises:
        UsageError: the fit or the source is unknown.
        MissingDataError: a file or a maskige is missing.
        AvsbError: the cache cannot be written, or the disk has too little room.
        Interrupted: ``stop`` was asked for; what was decoded is kept.
    """
    if fit not in get_args(Fit):
        raise unknown("fit", fit, get_args(Fit))
    clips = dataset.clips(split)
    maskiges = None if maskige is None else maskige_paths(dataset, split, maskige)
    try:
        decoded = DecodedClips(FileDecoder(clips, dataset.task, size, cast(Fit, fit), maskiges))
        shortage = decoded.shortage()
    except OSError as error:
        raise AvsbError(
            f"The cache cannot be written ({error}); set AVSB_CACHE_DIR to another folder."
        ) from None
    if shortage is not None:
        raise AvsbError(shortage)
    count, written = fill(decoded, split, stop)
    return Decoded(split, len(clips), count, written, str(decoded.store.folder))


@dataclass(frozen=True)
class Heard:
    """What keeping the sound of a split came to.

    Attributes:
        split: which.
        clips: how many it has.
        form: ``embeddings`` of the frozen VGGish, or ``log-mels`` for runs that train their audio encoder.
        folder: where they lie.
    """

    split: Split
    clips: int
    form: Literal["embeddings", "log-mels"]
    folder: str

    @property
    def sentence(self) -> str:
        """For people."""
        return f"{self.split}: sound of {self.clips} clips as {self.form} in {self.folder}"

    def to_json(self) -> dict[str, Any]:
        """The attributes."""
        return asdict(self)


def hear_split(dataset: Dataset, split: Split, stop: StopRequest | None = None) -> Heard:
    """Keep the sound of a split as recipes take it: embeddings where VGGish's weights are in the store.

    Raises:
        MissingDataError: a clip has no sound on disk.
        UsageError: a recording cannot be read.
        Interrupted: ``stop`` was asked for; what was kept stays.
    """
    clips, weights = dataset.clips(split), find("vggish")
    with hearing(split, len(clips), stop) as advance:
        if weights is None:
            log_mel_clips(clips, dataset.task, advance)
            return Heard(split, len(clips), "log-mels", str(cache_dir() / "log-mels"))
        encoder = build_audio_encoder("vggish", weights)
        embed_clips(clips, dataset.task, encoder, sha256_file(weights), progress=advance)
        return Heard(split, len(clips), "embeddings", str(cache_dir() / "embeddings"))


def keep_decoded(
    dataset: ClipDataset, split: Split, stop: StopRequest | None = None, *, ahead: bool = True
) -> None:
    """Have a run's clips decoded once, and read from the cache after that.

    Where the cache cannot be written or the disk has too little room they are decoded from their files at
    every reading, and one line says so.

    Args:
        dataset: the clips.
        split: for the progress bar.
        stop: asked between clips.
        ahead: decode all of them now, in parallel; else each when it is first read.

    Raises:
        Interrupted: the run was told to stop; what was decoded is kept.
    """
    try:
        decoded = DecodedClips(dataset.decoder)
        shortage = decoded.shortage()
    except OSError as error:
        logger.info(
            f"The cache cannot be written ({error}); clips are decoded from their files at every reading."
        )
        return
    if shortage is not None:
        logger.info(f"{shortage} Until then clips are decoded from their files at every reading.")
        return
    dataset.source = decoded
    if ahead:
        fill(decoded, split, stop)


def fill(decoded: DecodedClips, split: Split, stop: StopRequest | None = None) -> tuple[int, int]:
    """Decode what the cache lacks, with a progress bar; returns how many clips that were, and their bytes."""
    with progress_bar() as progress:
        display = progress.add_task(f"decode {split}", total=len(decoded.decoder.clips), note="")

        def advance(count: int) -> None:
            if stop:
                raise stop.error("The clips decoded so far are kept; the same command goes on from there.")
            progress.advance(display, count)

        return decoded.fill(advance)
