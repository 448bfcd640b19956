"""Prediction of a split under several audio conditions in one pass over the clips.

The clips are read once, and everything that depends on the pictures alone is computed once per batch, see
:meth:`.data.batch.Batch.once`. Predictions are kept in the run's folder until all clips are predicted, so
that an interrupted pass is resumed, and then written as one submission per condition.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from avsbench_harness import distributed
from avsbench_harness.console import progress_bar
from avsbench_harness.data.batch import Batch
from avsbench_harness.data.cache.store import ArrayStore, array_key
from avsbench_harness.data.epochs import Key
from avsbench_harness.data.loader import ClipDataset, in_order, load
from avsbench_harness.engine.cache_features import cache_features
from avsbench_harness.engine.inputs import audio_inputs
from avsbench_harness.engine.interrupt import StopRequest, stop_request
from avsbench_harness.engine.predict import (
    evaluation_clips,
    predict_batch,
    submission_header,
    trained_system,
)
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.solutions import solution_file
from avsbench_harness.engine.system import System
from avsbench_harness.files import sha256_file, sha256_json
from avsbench_harness.robustness.conditions import CLEAN
from avsbench_harness.submission import Header, SubmissionWriter, encode, read_solution
from avsbench_harness.tasks import Split

# Largest size of predictions that are kept without compression, bytes.
_UNCOMPRESSED = 2**31

#: A clip's prediction in a submission: threshold codes, or labels, (t,side,side).
Codes: TypeAlias = NDArray[np.uint8]

#: Per condition and clip id the audio inputs, without the clips that the condition leaves out.
Audio: TypeAlias = Mapping[str, Mapping[str, NDArray[np.float32]]]


def predict_conditions(run: Run, split: Split, names: Sequence[str]) -> dict[str, Path]:
    """Predict a split under audio conditions, and write one submission per condition.

    The predictions are those of :func:`.predict.predict` under each condition. Whole batches are distributed
    over the processes in turn.

    Args:
        run: a trained run.
        split: the split.
        names: names of the conditions.

    Returns:
        The submission of each condition.

    Raises:
        MissingDataError: the run is not trained.
        UsageError: a condition is unknown or not available.
        Interrupted: a stop was requested; the batches predicted so far are kept.
    """
    system = trained_system(run)
    runs = {name: replace(run, condition=name) for name in names}
    with stop_request() as stop:
        with distributed.main_process_first(), read_solution(solution_file(run.dataset, split)) as solution:
            clips = evaluation_clips(replace(run, condition=CLEAN), split, stop)
            dataset = cache_features(run, system.model, clips, split, stop)
            audio = {name: audio_inputs(one, split) for name, one in runs.items() if name != CLEAN}
            headers = {
                name: submission_header(one, split, solution.fingerprint) for name, one in runs.items()
            }
        if CLEAN in names:
            audio[CLEAN] = dataset.audio
        kept = Predictions(run, headers, len(dataset))
        _fill(run, system, dataset, audio, kept, stop)
        paths = {name: one.submission_file(split) for name, one in runs.items()}
        if distributed.rank() == 0:
            for name, path in paths.items():
                kept.write(name, path, [clip.id for clip in dataset.clips if clip.id in audio[name]])
            kept.remove()
    return paths


class Predictions:
    """The predictions of an unfinished pass, in the folder of the run.

    Args:
        run: the run.
        headers: header of the submission of each condition.
        clips: number of clips.
    """

    def __init__(self, run: Run, headers: Mapping[str, Header], clips: int) -> None:
        self.headers = headers
        size = len(headers) * clips * run.task.frames * run.side**2
        # Submissions are compressed once more, so that small ones are kept as they are.
        self._level = 0 if size <= _UNCOMPRESSED else 1
        self._weights = sha256_file(run.weights_file)
        self._store = ArrayStore(run.folder / "predictions")

    def missing(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return the (condition, clip id) pairs that are not predicted."""
        keys = {self._key(*pair): pair for pair in pairs}
        return {keys[key] for key in self._store.missing(keys)}

    def add(self, name: str, clip: str, codes: Codes) -> None:
        """Keep a prediction."""
        head = np.array(codes.shape, "<u4").tobytes()  # the shape is part of the stored bytes
        packed = zlib.compress(head + codes.tobytes(), self._level)
        self._store.store(self._key(name, clip), np.frombuffer(packed, np.uint8))

    def write(self, name: str, path: Path, clips: Sequence[str]) -> None:
        """Write the submission of a condition."""
        with SubmissionWriter(path, self.headers[name]) as writer:
            for clip in clips:
                packed = self._store.load(self._key(name, clip), f"The prediction of clip {clip}")
                assert packed is not None  # missing ones have been computed
                content = zlib.decompress(packed.tobytes())
                shape = np.frombuffer(content, "<u4", 3)
                writer.add(clip, np.frombuffer(content, np.uint8, offset=12).reshape(shape), encoded=True)

    def remove(self) -> None:
        """Remove all predictions, after the submissions are written."""
        rmtree(self._store.folder, ignore_errors=True)

    def _key(self, name: str, clip: str) -> str:
        header = sha256_json(self.headers[name].to_json())
        return array_key(weights=self._weights, header=header, clip=clip)


def _fill(
    run: Run, system: System, dataset: ClipDataset, audio: Audio, kept: Predictions, stop: StopRequest
) -> None:
    """Predict the clips that are missing under any condition."""
    pairs = [(name, clip.id) for name, known in audio.items() for clip in dataset.clips if clip.id in known]
    missing = kept.missing(pairs) if distributed.rank() == 0 else set()
    missing = distributed.broadcast(missing)
    batches = [
        keys
        for keys in in_order(len(dataset), run.recipe.batch_size)
        if any((name, dataset.clips[index].id) in missing for name in audio for index, _ in keys)
    ]
    system.eval()
    total = sum(map(len, batches))
    with progress_bar() as progress:
        display = progress.add_task(f"predict under {len(audio)} conditions", total=total, note="")
        for own in _rounds(run, system, dataset, audio, batches):
            if stop.anywhere():
                raise stop.error("The predictions so far are kept; rerun the same command to resume.")
            for found in distributed.gather(own):
                done = set()
                for name, index, codes in found:
                    clip = dataset.clips[index].id
                    if (name, clip) in missing:
                        kept.add(name, clip, codes)
                    done.add(index)
                progress.advance(display, len(done))


def _rounds(
    run: Run, system: System, dataset: ClipDataset, audio: Audio, batches: Sequence[Sequence[Key]]
) -> Iterator[list[tuple[str, int, Codes]]]:
    """Predict this process's batches, one per round: (condition, clip index, prediction) triples."""
    own = batches[distributed.rank() :: distributed.world_size()]
    loaded = load(dataset, own, workers=run.workers, device=run.device)
    for keys, loaded_batch in zip(own, loaded, strict=True):
        batch = loaded_batch.to(run.device, non_blocking=True)
        if not run.recipe.compile:  # compiled code would be compiled again for every recording
            batch = batch.sharing()
        found: list[tuple[str, int, Codes]] = []
        for name, known in audio.items():
            changed = _with_audio(batch, [known.get(dataset.clips[index].id) for index, _ in keys])
            for index, masks in predict_batch(run, system, dataset, keys, changed):
                if dataset.clips[index].id in known:
                    codes = masks.astype(np.uint8) if run.task.semantic else encode(masks)
                    found.append((name, index, codes))
        yield found
    if len(own) < -(-len(batches) // distributed.world_size()):
        yield []


def _with_audio(batch: Batch, sounds: Sequence[NDArray[np.float32] | None]) -> Batch:
    """Return a batch with other audio; clips without keep their own, so that batches are always the same."""
    changed = [
        own if sound is None else torch.from_numpy(sound).to(own.device)
        for own, sound in zip(batch.audio, sounds, strict=True)
    ]
    return batch.with_audio(torch.stack(changed))
