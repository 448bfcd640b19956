"""One run from its spec to its record: train, predict, score, record."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsbench_harness.engine.progress import say
from avsbench_harness.engine.solutions import solution_file
from avsbench_harness.errors import UsageError
from avsbench_harness.files import read_json, sha256_file
from avsbench_harness.results.record import (
    DataEntry,
    Record,
    ScoreEntry,
    TrainingEntry,
    environment,
    now,
    read_record,
    write_record,
)
from avsbench_harness.scoring import score_submission
from avsbench_harness.submission import read_solution, read_submission

if TYPE_CHECKING:
    from avsbench_harness.engine.run import Run, RunSpec
    from avsbench_harness.scoring import Scores
    from avsbench_harness.submission import Header


def execute(run: Run) -> Record:
    """Carry a run out from where it stands; a run that has a record is not repeated."""
    if run.record_file.is_file():
        say(f"{run.id} is finished: {run.record_file}.")
        return read_record(run.record_file)
    run.method.train(run)
    path = run.method.predict(run, "test")
    with read_submission(path) as submission, read_solution(solution_file(run.dataset, "test")) as solution:
        scores = score_submission(submission, solution)
        header = submission.header
    return record_submission(run.out, path, header, scores)


def record_submission(out: Path, path: Path, header: Header, scores: Scores) -> Record:
    """Write the record of a scored submission under ``out/results``.

    Args:
        out: the folder that holds ``runs/`` and ``results/``; where the submission's run is in it, the
            record tells how it came about.
        path: the submission.
        header: what it says about itself.
        scores: its scores.

    Raises:
        UsageError: there is a record of that run already, or the run's id cannot be a file's name.
    """
    run_id = _file_name(header.run or path.stem, header.split)
    made_here = _run_facts(out / "runs" / run_id) if header.split == "test" else {}
    record = Record(
        run_id=run_id,
        created=now(),
        task=header.task,
        data=DataEntry(
            name=scores.dataset,
            split=header.split,
            synthetic=scores.synthetic,
            solution=scores.solution,
            fingerprint=made_here.pop("data_fingerprint", None),
        ),
        scores=[score_entry(scores)],
        submission_sha256=sha256_file(path),
        environment=environment(made_here.pop("device", "n/a (predicted elsewhere)")),
        **{"method": header.method, "notes": [header.note] if header.note else [], **made_here},
    )
    write_record(out / "results" / f"{run_id}.json", record, scores.per_clip)
    return record


def score_entry(scores: Scores) -> ScoreEntry:
    """Scores as a record keeps them."""
    return ScoreEntry(
        protocol=scores.protocol,
        batch=scores.batch,
        main=list(scores.main),
        metrics=scores.metrics,
        intervals=scores.intervals,
        clips=scores.n,
    )


def notes(spec: RunSpec) -> list[str]:
    """What a reader of the record must know, one sentence each."""
    found = []
    audio = spec.audio
    if spec.data.synthetic:
        found.append("Synthetic data: the scores say nothing about the method on AVSBench.")
    if spec.preset == "smoke":
        found.append("Smoke recipe: too short to say anything about the method.")
    if audio.trained and audio.weights is None:
        found.append(f"The audio encoder ({audio.encoder}) was trained with the model from random weights.")
    elif audio.trained:
        found.append(f"The audio encoder ({audio.encoder}) was trained with the model, not frozen.")
    if spec.backbone_weights is None:
        found.append("The backbone started from random weights.")
    return found


def _file_name(run_id: str, split: str) -> str:
    """The record's name for a run's id, which may come from a stranger's file."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", run_id):
        raise UsageError(
            f"The run id {run_id[:80]!r} cannot name a record; use up to 200 of A-Z a-z 0-9 _ . - for it."
        )
    return run_id if split == "test" else f"{run_id}-{split}"


def _run_facts(folder: Path) -> dict[str, Any]:
    """What a record says of a run that was trained in this folder; nothing if none was."""
    if not (folder / "checkpoint.json").is_file():
        return {}
    from avsbench_harness.engine.checkpoint import Checkpoint
    from avsbench_harness.engine.run import RunSpec

    spec = RunSpec.parse(read_json(folder / "spec.json"), str(folder / "spec.json"))
    checkpoint = Checkpoint.parse(read_json(folder / "checkpoint.json"), str(folder / "checkpoint.json"))
    return {
        "method": spec.method,
        "variant": spec.variant,
        "backbone": spec.backbone,
        "preset": spec.preset,
        "seed": spec.seed,
        "training": TrainingEntry(
            steps=checkpoint.steps,
            selected_step=checkpoint.selected_step,
            validations=[validation.model_dump(mode="json") for validation in checkpoint.validations],
            seconds=round(checkpoint.seconds, 3),
            weights_sha256=sha256_file(folder / checkpoint.weights_file),
        ),
        "device": checkpoint.device,
        "data_fingerprint": spec.data.fingerprint,
        "spec": spec.model_dump(mode="json"),
        "spec_hash": spec.hash,
        "notes": notes(spec),
    }
