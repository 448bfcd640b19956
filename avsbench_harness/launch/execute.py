"""One run from its spec to its record: train, predict, score, record."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsbench_harness import distributed
from avsbench_harness.engine.solutions import solution_file
from avsbench_harness.errors import (
    AvsbError,
    Busy,
    Interrupted,
    SubmissionError,
    TooManyProcesses,
    UsageError,
    one_line,
)
from avsbench_harness.files import read_json, sha256_file
from avsbench_harness.results.record import (
    CostEntry,
    DataEntry,
    Record,
    ScoreEntry,
    TrainingEntry,
    environment,
    now,
    read_record,
    write_failure,
    write_record,
)
from avsbench_harness.scoring import (
    Scores,
    Unavailable,
    canonical,
    get_protocol,
    protocols,
    score_protocols,
    score_submission,
)
from avsbench_harness.submission import read_solution, read_submission

if TYPE_CHECKING:
    from avsbench_harness.engine.run import Run, RunSpec
    from avsbench_harness.submission import Header, Solution, Submission
    from avsbench_harness.tasks import Task
    from avsbench_harness.weights.sources import WeightsSpec

logger = logging.getLogger(__name__)


#: Ids that may become names of files, also where they come from a stranger.
_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


def execute(run: Run) -> Record:
    """Carry a run out from where it stands; a run that was scored is not repeated.

    A run that fails leaves a record that says why, and is tried again the next time.
    """
    with distributed.main_process_first():
        record = read_record(run.record_file) if run.record_file.is_file() else None
    if record is not None and record.status == "done":
        logger.info(f"{run.id} is finished: {run.record_file}.")
        return record
    try:
        return _execute(run)
    except (Busy, Interrupted, TooManyProcesses, distributed.PeerFailedError):
        raise
    except Exception as error:
        if distributed.rank() != 0:
            raise
        reason = str(error) if isinstance(error, AvsbError) else f"{type(error).__name__}: {error}"
        record_failure(run, one_line(reason))
        raise


def _execute(run: Run) -> Record:
    make_weights(run)
    path = run.method.predict(run, "test")
    with distributed.main_process_first():
        if distributed.rank() == 0:
            _record(run, path)
    return read_record(run.record_file)


def _record(run: Run, path: Path) -> None:
    """Score the run's submission and write its record."""
    with read_submission(path) as submission, read_solution(solution_file(run.dataset, "test")) as solution:
        scores, *more = score_for_record(submission, solution, run.recipe.protocols)
        header = submission.header
    record_submission(run.out, path, header, scores, more)


def make_weights(run: Run) -> None:
    """Train the run, or take over the checkpoint that its spec names; what is done is not done again."""
    if run.spec.checkpoint is None:
        run.method.train(run)
        return
    from avsbench_harness.engine.skip_training import adopt

    adopt(run)


def recorded_protocols(out: Path, header: Header) -> list[str]:
    """The protocols that the recipe of a submission's run wants beside the canonical one, if it ran here."""
    if header.split != "test" or not _RUN_ID.fullmatch(header.run):
        return []
    path = out / "runs" / header.run / "spec.json"
    return list(read_json(path)["recipe"].get("protocols", [])) if path.is_file() else []


def score_for_record(submission: Submission, solution: Solution, also: Sequence[str]) -> list[Scores]:
    """The canonical scores, those of the other named protocols after them, and those of a host's parts.

    Raises:
        UsageError: the task has no such protocol.
        SubmissionError: as for ``score_submission``.
    """
    task = solution.header.task
    names = list(dict.fromkeys([canonical(task), *also]))
    results = score_protocols(submission, solution, [get_protocol(task, name) for name in names])
    for result in results:
        if isinstance(result, Unavailable):
            raise SubmissionError(f"{submission.path}: protocol '{result.protocol}' {result.reason}.")
    found = [result for result in results if isinstance(result, Scores)]
    if any(clip.private for clip in solution.header.clips):
        found += [score_submission(submission, solution, part=part) for part in ("public", "private")]
    return found


def check_protocols(task: Task, names: Sequence[str]) -> None:
    """Refuse names of protocols that cannot score a submission of the task.

    Raises:
        UsageError: one is unknown, of another task, or needs more than a submission holds.
    """
    for name in names:
        if name in protocols() and name not in protocols(task.name):
            raise UsageError(
                f"The recipe's protocols name '{name}', which does not score {task.name}; "
                f"there are {', '.join(protocols(task.name))}."
            )
        reason = get_protocol(task.name, name).needs_scores
        if reason:
            raise UsageError(f"The recipe's protocols name '{name}', which {reason}; leave it out.")


def record_submission(
    out: Path,
    path: Path,
    header: Header,
    scores: Scores,
    more: Sequence[Scores] = (),
) -> Record:
    """Write the record of a scored submission under ``out/results``.

    Args:
        out: the folder that holds ``runs/`` and ``results/``; where the submission's run is in it, the
            record tells how it came about.
        path: the submission.
        header: what it says about itself.
        scores: its canonical scores, whose per-clip table is kept too.
        more: its scores under other protocols, or of parts of the clips.

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
        scores=[score_entry(entry) for entry in (scores, *more)],
        submission_sha256=sha256_file(path),
        environment=environment(made_here.pop("device", "n/a (predicted elsewhere)")),
        **{"method": header.method, "notes": [header.note] if header.note else [], **made_here},
    )
    write_record(out / "results" / f"{run_id}.json", record, scores)
    return record


def record_failure(run: Run, reason: str) -> None:
    """Write the record of a run that failed, with the reason in one line."""
    spec = run.spec
    record = Record(
        run_id=run.id,
        created=now(),
        status="failed",
        reason=reason,
        method=spec.method,
        variant=spec.variant,
        backbone=spec.backbone,
        preset=spec.preset,
        task=spec.task,
        seed=spec.seed,
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
        spec=spec.model_dump(mode="json"),
        spec_hash=spec.hash,
        notes=notes(spec),
    )
    write_failure(run.record_file, record)


def score_entry(scores: Scores) -> ScoreEntry:
    """Scores as a record keeps them."""
    return ScoreEntry(
        protocol=scores.protocol,
        batch=scores.batch,
        main=list(scores.main),
        metrics=scores.metrics,
        intervals=scores.intervals,
        clips=scores.n,
        part=scores.part,
    )


def notes(spec: RunSpec) -> list[str]:
    """What a reader of the record must know, one sentence each."""
    found = []
    audio = spec.audio
    if spec.data.synthetic:
        found.append("Synthetic data: the scores say nothing about the method on AVSBench.")
    if spec.checkpoint is not None:
        return [*found, _origin(spec.checkpoint)]
    if spec.preset == "smoke":
        found.append("Smoke recipe: too short to say anything about the method.")
    if spec.init is not None:
        found.append(_start(spec.init, spec.recipe.init_skip))
    if spec.recipe.supplement is not None:
        found.append(
            f"Training frames without masks were given pseudo-masks (supplement: {spec.recipe.supplement})."
        )
    if audio.trained and audio.weights is None and spec.init is None:
        found.append(f"The audio encoder ({audio.encoder}) was trained with the model from random weights.")
    elif audio.trained:
        found.append(f"The audio encoder ({audio.encoder}) was trained with the model, not frozen.")
    if spec.backbone_weights is None and spec.init is None:
        found.append("The backbone started from random weights.")
    return found


def _origin(checkpoint: WeightsSpec) -> str:
    """The note of a run that was not trained."""
    kind = "a published checkpoint" if checkpoint.published else "another run"
    return f"Weights from {kind}, {checkpoint.file} (SHA-256 {checkpoint.sha256}), not trained here."


def _start(init: WeightsSpec, skip: Sequence[str]) -> str:
    """The note of a run that did not start from scratch."""
    kind = "a published checkpoint" if init.published else "another run"
    but = f", but for {', '.join(skip)}" if skip else ""
    return f"Training started from the weights of {kind}, {init.file} (SHA-256 {init.sha256}){but}."


def _file_name(run_id: str, split: str) -> str:
    """The record's name for a run's id, which may come from a stranger's file."""
    if not _RUN_ID.fullmatch(run_id):
        raise UsageError(
            f"The run id {run_id[:80]!r} cannot name a record; use up to 200 of A-Z a-z 0-9 _ . - for it."
        )
    return run_id if split == "test" else f"{run_id}-{split}"


def _run_facts(folder: Path) -> dict[str, Any]:
    """What a record says of a run that was trained in this folder; nothing if none was."""
    if not (folder / "training.json").is_file():
        return {}
    from avsbench_harness.engine.run import RunSpec
    from avsbench_harness.method import TrainingSummary

    spec = RunSpec.parse(read_json(folder / "spec.json"), str(folder / "spec.json"))
    checkpoint = TrainingSummary.parse(read_json(folder / "training.json"), str(folder / "training.json"))
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
            clips_per_second=checkpoint.clips_per_second,
            memory_gib=checkpoint.memory_gib,
        ),
        "cost": None
        if checkpoint.parameters is None or checkpoint.gmacs is None
        else CostEntry(parameters=checkpoint.parameters, gmacs=checkpoint.gmacs),
        "device": checkpoint.device,
        "data_fingerprint": spec.data.fingerprint,
        "spec": spec.model_dump(mode="json"),
        "spec_hash": spec.hash,
        "notes": notes(spec) + _shared_by(checkpoint.processes),
    }


def _shared_by(processes: int) -> list[str]:
    """The note of a training that several processes shared."""
    if processes == 1:
        return []
    return [f"Trained by {processes} processes, on whose number batch norms and random draws depend."]
