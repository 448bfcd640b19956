"""Records of runs and of submissions, from spec, training summary and scores. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsbench_harness.engine.run import RunSpec
from avsbench_harness.errors import UsageError
from avsbench_harness.files import read_json, sha256_file
from avsbench_harness.method import TrainingSummary
from avsbench_harness.results.record import (
    CostEntry,
    DataEntry,
    Record,
    ScoreEntry,
    TrainingEntry,
    environment,
    is_run_id,
    now,
    write_failure,
    write_record,
)

if TYPE_CHECKING:
    from avsbench_harness.engine.run import Run
    from avsbench_harness.scoring import Scores
    from avsbench_harness.submission import Header
    from avsbench_harness.weights.spec import WeightsSpec


@dataclass(frozen=True)
class Origin:
    """The run that a submission comes from.

    Attributes:
        spec: its spec.
        summary: of its training.
        weights_file: its weights.
    """

    spec: RunSpec
    summary: TrainingSummary
    weights_file: Path

    @classmethod
    def read(cls, folder: Path) -> Origin | None:
        """The run in a folder, ``None`` if no training has finished there."""
        if not (folder / "training.json").is_file():
            return None
        spec = RunSpec.parse(read_json(folder / "spec.json"), str(folder / "spec.json"))
        summary = TrainingSummary.parse(read_json(folder / "training.json"), str(folder / "training.json"))
        return cls(spec, summary, folder / summary.weights_file)


def submission_record(
    path: Path, header: Header, scores: Sequence[Scores], origin: Origin | None = None
) -> Record:
    """The record of a scored submission.

    Args:
        path: the submission.
        header: of the submission.
        scores: the canonical scores first, see ``run_scores.score_with_protocols``.
        origin: the run that it comes from; ``None`` for predictions made elsewhere.

    Raises:
        UsageError: the run's id cannot be a file name.
    """
    run_id = _record_name(header.run or path.stem, header.split)
    device = "n/a (predicted elsewhere)" if origin is None else origin.summary.device
    return Record(
        run_id=run_id,
        created=now(),
        task=header.task,
        data=DataEntry(
            name=scores[0].dataset,
            split=header.split,
            synthetic=scores[0].synthetic,
            solution=scores[0].solution,
            fingerprint=None if origin is None else origin.spec.data.fingerprint,
        ),
        scores=[score_entry(entry) for entry in scores],
        submission_sha256=sha256_file(path),
        environment=environment(device, None if origin is None else origin.summary.threads),
        **(_submitted(header) if origin is None else _trained(origin)),
    )


def record_submission(out: Path, path: Path, header: Header, scores: Sequence[Scores]) -> Record:
    """Write the record of a scored submission under ``out/results``.

    Args:
        out: folder that holds ``runs/`` and ``results/``; the record describes the training of a run found
            there.
        path: the submission.
        header: of the submission.
        scores: the canonical scores first; their per-clip table is written beside the record.

    Raises:
        UsageError: that run has a record already, or its id cannot be a file name.
    """
    folder = out / "runs" / (header.run or path.stem)
    known = header.split == "test" and is_run_id(folder.name)
    record = submission_record(path, header, scores, Origin.read(folder) if known else None)
    write_record(out / "results" / f"{record.run_id}.json", record, scores[0])
    return record


def record_failure(run: Run, reason: str) -> None:
    """Write the record of a run that failed; ``reason`` is one line."""
    spec = run.spec
    record = Record(
        run_id=spec.run_id,
        created=now(),
        status="failed",
        reason=reason,
        task=spec.task,
        data=DataEntry(
            name=spec.data.name,
            split="test",
            synthetic=spec.data.synthetic,
            solution=None,
            fingerprint=spec.data.fingerprint,
        ),
        scores=[],
        submission_sha256=None,
        environment=environment(run.device),
        notes=notes(spec),
        **_planned(spec),
    )
    write_failure(run.record_file, record)


def notes(spec: RunSpec) -> list[str]:
    """Facts that a reader of the record must know, one sentence each."""
    found = []
    audio = spec.audio
    if spec.data.synthetic:
        found.append("Synthetic data: the scores do not measure the method on AVSBench.")
    if spec.recipe.processed_frames and spec.data.processed is None:
        found.append("The frames were resized from the original ones, as processed_frames were missing.")
    if spec.weights is not None:
        source = _describe(spec.weights)
        return [*found, f"{source[0].upper()}{source[1:]}, not trained here."]
    if spec.preset == "smoke":
        found.append("Smoke recipe: too short to measure the method.")
    if spec.init is not None:
        skipped = spec.recipe.init_skip
        but = f", except for {', '.join(skipped)}" if skipped else ""
        found.append(f"Training started from {_describe(spec.init)}{but}.")
    if spec.recipe.supplement is not None:
        found.append(
            f"Training frames without masks were given pseudo-masks (supplement: {spec.recipe.supplement})."
        )
    if audio.trained and audio.weights is None and spec.init is None:
        found.append(f"The audio encoder ({audio.encoder}) was trained with the model from random weights.")
    elif audio.trained:
        found.append(f"The audio encoder ({audio.encoder}) was trained with the model, not frozen.")
    weights = spec.backbone_weights
    if weights is not None:
        found.append(f"The backbone started from {weights.name} (SHA-256 {weights.sha256[:12]}).")
    elif spec.init is None:
        found.append("The backbone started from random weights.")
    return found


def _describe(weights: WeightsSpec) -> str:
    kind = "published weights" if weights.published else "weights of another run"
    return f"{kind}, {weights.file} (SHA-256 {weights.sha256})"


def _planned(spec: RunSpec) -> dict[str, Any]:
    """The fields of a record that the spec decides."""
    return {
        "method": spec.method,
        "variant": spec.variant,
        "backbone": spec.backbone,
        "preset": spec.preset,
        "seed": spec.seed,
        "spec": spec.model_dump(mode="json"),
        "spec_hash": spec.hash,
    }


def _trained(origin: Origin) -> dict[str, Any]:
    """The fields of a record that describe the run of the submission."""
    summary = origin.summary
    several = (
        [f"Trained by {summary.processes} processes; batch norms and random draws depend on their number."]
        if summary.processes > 1
        else []
    )
    return {
        **_planned(origin.spec),
        "training": TrainingEntry(
            steps=summary.steps,
            selected_step=summary.selected_step,
            validations=[validation.model_dump(mode="json") for validation in summary.validations],
            seconds=round(summary.seconds, 3),
            weights_sha256=sha256_file(origin.weights_file),
            clips_per_second=summary.clips_per_second,
            memory_gib=summary.memory_gib,
        ),
        "cost": None
        if summary.parameters is None or summary.gmacs is None
        else CostEntry(parameters=summary.parameters, gmacs=summary.gmacs),
        "notes": notes(origin.spec) + several,
    }


def _submitted(header: Header) -> dict[str, Any]:
    """The fields of a record of predictions made elsewhere."""
    return {"method": header.method, "notes": [header.note] if header.note else []}


def score_entry(scores: Scores) -> ScoreEntry:
    """The scores as an entry of a record."""
    return ScoreEntry(
        protocol=scores.protocol,
        batch=scores.batch,
        main=list(scores.main),
        metrics=scores.metrics,
        intervals=scores.intervals,
        clips=scores.n,
        part=scores.part,
    )


def _record_name(run_id: str, split: str) -> str:
    """The file name of a record, without its suffix."""
    if not is_run_id(run_id):
        raise UsageError(
            f"The run id {run_id[:80]!r} cannot name a record; use up to 200 of A-Z a-z 0-9 _ . - for it."
        )
    return run_id if split == "test" else f"{run_id}-{split}"
