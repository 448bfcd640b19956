"""The training loop that all methods share.

A run can be interrupted at any time, and resumes from its last checkpoint when the same command is rerun; on
the CPU the result is bitwise identical to that of an uninterrupted run. The order of clips, the augmentation,
the learning rate and every random draw are therefore functions of the spec and the step.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from avsbench_harness import distributed
from avsbench_harness.console import progress_bar
from avsbench_harness.data.batch import Batch
from avsbench_harness.data.loader import ClipDataset, load
from avsbench_harness.engine import optim
from avsbench_harness.engine.acceleration import accelerate
from avsbench_harness.engine.cache_features import cache_features
from avsbench_harness.engine.checkpoint import (
    Best,
    TrainState,
    load_checkpoint,
    save_checkpoint,
)
from avsbench_harness.engine.contract import check_diagnostics
from avsbench_harness.engine.early_stopping import validations_since_best
from avsbench_harness.engine.heartbeat import note_progress
from avsbench_harness.engine.inputs import training_epochs
from avsbench_harness.engine.interrupt import StopRequest, stop_request
from avsbench_harness.engine.metric_buffer import MetricBuffer, StepMetrics
from avsbench_harness.engine.out_of_memory import out_of_memory
from avsbench_harness.engine.predict import evaluation_clips, validate
from avsbench_harness.engine.progress import Meter
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.run_folder import exclusive, read_summary, write_spec, write_summary
from avsbench_harness.engine.saved_weights import kept_steps, save_weights
from avsbench_harness.engine.shown_clips import shown_clips
from avsbench_harness.engine.step import Stepper, own_share
from avsbench_harness.engine.system import build_system, set_determinism
from avsbench_harness.engine.training_set import training_set
from avsbench_harness.errors import AvsbError
from avsbench_harness.method import TrainingSummary, Validation
from avsbench_harness.nn.cost import model_cost
from avsbench_harness.tracking.json_log import JsonLog
from avsbench_harness.tracking.tracker import Tracker, ValidationEntry
from avsbench_harness.tracking.trackers import open_trackers
from avsbench_harness.weights.tensors import load_tensors, save_tensors

logger = logging.getLogger(__name__)


#: Seconds between checkpoints inside an epoch; tests shorten it.
CHECKPOINT_SECONDS = float(os.environ.get("AVSB_CHECKPOINT_SECONDS", "600"))


def train(run: Run) -> TrainingSummary:
    """Train a run, or resume it from its last checkpoint; a finished training is not repeated.

    Raises:
        AvsbError: the loss is not finite, the method breaks the contract of its network, or another process
            trains this run.
        Interrupted: a signal was received; the state is saved.
    """
    with ExitStack() as stack:
        with distributed.main_process_first():
            if distributed.rank() == 0:
                stack.enter_context(exclusive(run))
        stop = stack.enter_context(stop_request())
        summary = read_summary(run) or _train(run, stop)
        if distributed.rank() == 0:
            shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
        return summary


def _train(run: Run, stop: StopRequest) -> TrainingSummary:
    set_determinism(run)
    with distributed.main_process_first():
        dataset = training_set(run, stop)
        if distributed.rank() == 0:
            write_spec(run)
    trainer = Trainer(run, dataset, stop)
    with closing(_open_log(run, trainer.state.step)) as log:
        trainer.loop(log)
    summary: TrainingSummary | None = None
    with distributed.main_process_first():
        if distributed.rank() == 0:
            summary = trainer.finish()
    summary = distributed.broadcast(summary)
    assert summary is not None  # rank 0 has sent it
    return summary


def _open_log(run: Run, step: int) -> Tracker:
    """The training log of a run that has done ``step`` steps; that of rank 0 is kept."""
    if distributed.rank() != 0:
        return JsonLog(Path(os.devnull), step)
    return open_trackers(run.trackers, run.id, run.folder, step, run.spec.model_dump(mode="json"))


class Trainer:
    """The training of one run: system, optimiser and training state."""

    def __init__(self, run: Run, dataset: ClipDataset, stop: StopRequest) -> None:
        self.run = run
        self.recipe = run.recipe
        self.stop = stop
        self.checkpoints = run.folder / "checkpoints"
        self.epochs = training_epochs(run, len(dataset))
        self.total = optim.length(run.recipe, self.epochs)
        stored = load_checkpoint(self.checkpoints)
        self.system = accelerate(build_system(run, pretrained=stored is None).to(run.device), self.recipe)
        self.stepper = Stepper(self.system, run.recipe, run.device, seed=run.spec.seed)
        self.metrics = MetricBuffer(run.device)
        self.state = TrainState()
        if stored is not None:
            self.system.load_state_dict(stored.weights)
            self.stepper.optimizer.load_state_dict(stored.optimizer)
            if stored.state.scaler:
                self.stepper.scaler.load_state_dict(dict(stored.state.scaler))
            self.state = stored.state
            logger.info(f"Resuming from step {self.state.step} of {self.total}.")
        self.dataset = cache_features(run, self.system.model, dataset, "train", stop)
        self._saved = time.monotonic()
        self._prediction_checked = False
        self._lr_factor = 1.0

    def loop(self, log: Tracker) -> None:
        """Train and validate until the last step."""
        meter = Meter(self.run.device)
        with progress_bar() as progress:
            display = progress.add_task("epoch 1", total=self.total, completed=self.state.step, note="")
            while True:
                self._validate_if_due(log)
                if self.state.step >= self.total or self._stops_early():
                    return
                epoch = self._start_epoch()
                for ids, batch in self._rest_of_epoch(epoch):
                    started = time.monotonic()
                    try:
                        terms = self._step(batch, ids)
                    except torch.OutOfMemoryError as error:
                        raise out_of_memory(error, self.run, self.stepper, batch) from None
                    except AvsbError:
                        self._read(log)  # an earlier step may have been the cause
                        raise
                    meter.tick(len(ids))
                    note_progress(self.state.step, self.total, meter.clips_per_second, len(ids))
                    diagnostics = check_diagnostics(
                        self.system.model.diagnostics(), terms, self.run.spec.method
                    )
                    self._add(epoch, ids, terms, diagnostics, meter)
                    if read := self.metrics.due:
                        progress.update(
                            display,
                            completed=self.state.step,
                            description=f"epoch {epoch + 1}",
                            note=_note(self._read(log), meter),
                        )
                    self._spend(time.monotonic() - started)
                    if read:
                        self._stop_if_asked(log)
                    if time.monotonic() - self._saved > CHECKPOINT_SECONDS:
                        self._save(log)
                    if self._due_inside_epoch():
                        break
                else:
                    self._save(log)

    def steps(self, count: int) -> Iterator[dict[str, Tensor]]:
        """Make at most ``count`` steps without log, validations and checkpoints; yields their losses."""
        last = min(self.state.step + count, self.total)
        while self.state.step < last:
            for ids, batch in self._rest_of_epoch(self._start_epoch()):
                yield self._step(batch, ids)
                if self.state.step >= last:
                    break

    def finish(self) -> TrainingSummary:
        """Write the selected weights and the summary of the training."""
        best = self.state.best
        if best is None and self.recipe.select.mode == "best":
            logger.warning("No validation was due, so that the last weights are selected.")
        weights: Mapping[str, Tensor] = (
            self.system.state_dict() if best is None else load_tensors(self.checkpoints / best.file)
        )
        selected = self.state.step if best is None else best.step
        save_tensors(self.run.weights_file, weights)
        cost = model_cost(self.system.model, self.recipe.image_size)
        summary = TrainingSummary(
            weights_file=self.run.weights_file.name,
            steps=self.state.step,
            selected_step=selected,
            validations=self.state.validations,
            seconds=self.state.seconds,
            device=self.run.device,
            processes=distributed.world_size(),
            threads=torch.get_num_threads() if self.run.device == "cpu" else None,
            clips_per_second=self.epochs.clips_before(self.state.step) / max(self.state.seconds, 1e-9),
            memory_gib=Meter(self.run.device).memory_gib() or None,
            parameters=cost.parameters,
            gmacs=cost.gmacs,
        )
        write_summary(self.run, summary)
        return summary

    def _start_epoch(self) -> int:
        """Freeze and unfreeze parameters for the epoch of the next step; returns it, counted from 0."""
        epoch = self.epochs.of(self.state.step)
        optim.set_training(self.system, self.system.model.backbone, self.recipe.backbone, epoch)
        self.stepper.update_trainable()
        return epoch

    def _rest_of_epoch(self, epoch: int) -> Iterator[tuple[list[str], Batch]]:
        """The remaining batches of an epoch, with their clips' ids."""
        steps = range(self.state.step, min(self.epochs.start(epoch + 1), self.total))
        rest = [self.epochs.batch(step) for step in steps]
        own = [keys[own_share(len(keys))] for keys in rest]
        batches = load(self.dataset, own, workers=self.run.workers, device=self.run.device)
        for keys, batch in zip(rest, batches, strict=True):
            ids = [self.dataset.clips[index].id for index, _ in keys]
            yield ids, batch.to(self.run.device, non_blocking=True)

    def _step(self, batch: Batch, ids: list[str]) -> dict[str, Tensor]:
        """Make one optimiser step on this process's share of a batch; returns the whole batch's losses.

        The first one checks the method's contract, see :mod:`.contract`.
        """
        if not self._prediction_checked:
            self.system.check_predict(batch.select(slice(0, 1)))
            self._prediction_checked = True
        step = self.state.step
        self._lr_factor = optim.lr_factor(self.recipe.schedule, step, self.total, self.epochs.of(step))
        terms = self.stepper.step(batch, len(ids), step, self._lr_factor)
        self.state = self.state.model_copy(update={"step": step + 1})
        return terms

    def _add(
        self,
        epoch: int,
        ids: list[str],
        terms: dict[str, Tensor],
        diagnostics: dict[str, float],
        meter: Meter,
    ) -> None:
        """Buffer the log entry of the last step."""
        norm = self.stepper.gradient_norm
        assert norm is not None  # a step was made
        self.metrics.add(
            self.state.step,
            epoch + 1,
            ids,
            terms,
            diagnostics,
            lr=self.recipe.optimizer.lr * self._lr_factor,
            gradient_norm=norm,
            measured=meter.measured(),
        )

    def _read(self, log: Tracker) -> dict[str, float]:
        """Log the steps whose losses are still on the device, and return the last one's.

        Raises:
            AvsbError: a loss is not finite.
        """
        terms: dict[str, float] = {}
        for step in self.metrics.take():
            terms = step.terms
            if not all(map(math.isfinite, terms.values())):
                raise self._not_finite(step)
            log.log_step(step.entry())
        return terms

    def _spend(self, seconds: float) -> None:
        self.state = self.state.model_copy(update={"seconds": self.state.seconds + seconds})

    @cached_property
    def _validation_clips(self) -> ClipDataset:
        with distributed.main_process_first():
            clips = evaluation_clips(self.run, "val", self.stop)
            return cache_features(self.run, self.system.model, clips, "val", self.stop)

    def _due(self) -> bool:
        """Whether the recipe asks for a validation after this step that was not made yet."""
        state, rule = self.state, self.recipe.validation
        if self.recipe.select.mode == "last" or state.step in (0, state.validated):
            return False
        if state.step == self.total and rule.last:
            return True
        if rule.every_steps is not None:
            return state.step % rule.every_steps == 0
        epoch = self.epochs.of(state.step)  # as many are complete
        due = epoch >= rule.first and (epoch - rule.first) % rule.every == 0
        return due and state.step == self.epochs.start(epoch)

    def _due_inside_epoch(self) -> bool:
        step = self.state.step
        return step != self.epochs.start(self.epochs.of(step)) and self._due()

    def _validate_if_due(self, log: Tracker) -> None:
        """Score the validation split if it is due, and save the weights if they are the best so far."""
        state = self.state
        if not self._due():
            return
        self._read(log)
        self._stop_if_asked(log)
        epoch = self.epochs.of(state.step - 1) + 1  # counted from 1; the last one may be incomplete
        shown = shown_clips(self._validation_clips) if log.images else []
        metrics, images = validate(self.run, self.system, self._validation_clips, self.stop, shown)
        value = metrics.get(name := self.recipe.metric(self.run.task))
        if value is None:
            raise AvsbError(f"The validation gives no '{name}' to select by; it gives {', '.join(metrics)}.")
        measured = {"time": round(time.time(), 3)}
        log.log_validation(ValidationEntry(state.step, epoch, metrics, measured, images))
        logger.info(f"epoch {epoch}: val {name} {value:.4f}")
        best = state.best
        if best is None or value > best.value:
            best = Best(step=state.step, value=value, file=f"best-{state.step:08d}.safetensors")
            if distributed.rank() == 0:
                save_tensors(self.checkpoints / best.file, self.system.state_dict())
        validations = [*state.validations, Validation(step=state.step, metrics=metrics)]
        self.state = state.model_copy(update={"best": best, "validations": validations})
        self._save(log)

    def _stops_early(self) -> bool:
        """Whether the recipe ends the training after the last validation."""
        rule = self.recipe.early_stopping
        if rule is None:
            return False
        metric = rule.metric or self.recipe.metric(self.run.task)
        since = validations_since_best(self.state.validations, metric)
        if since >= rule.patience:
            logger.info(f"Early stopping: val {metric} has not improved in {since} validations.")
        return since >= rule.patience

    def _save(self, log: Tracker) -> None:
        """TrainingSummary now; weights that are no longer the best go once it stands."""
        self._read(log)  # weights after a loss that is not finite are not saved
        log.flush()
        self._saved = time.monotonic()
        self.state = self.state.model_copy(update={"scaler": self.stepper.scaler.state_dict()})
        if distributed.rank() != 0:
            return
        metric = self.recipe.metric(self.run.task)
        state = self.state
        kept = kept_steps(self.recipe.keep, self.epochs, state.step, self.total, state.validations, metric)
        save_weights(self.run.folder, kept, state.step, self.system.state_dict())
        save_checkpoint(self.checkpoints, self.state, self.system.state_dict(), self.stepper.optimizer)
        for old in self.checkpoints.glob("best-*.safetensors"):
            if self.state.best is None or old.name != self.state.best.file:
                old.unlink()

    def _stop_if_asked(self, log: Tracker) -> None:
        if self.stop.anywhere():
            self._save(log)
            raise self.stop.error(
                f"The state after step {self.state.step} of {self.total} is saved; "
                "rerun the same command to resume."
            )

    def _not_finite(self, step: StepMetrics) -> AvsbError:
        values = ", ".join(f"{name} {value}" for name, value in step.terms.items() if name != "loss")
        saved = sorted(self.checkpoints.glob("step-*"))
        last = f"the last good checkpoint is {saved[-1]}" if saved else "there is no checkpoint yet"
        return AvsbError(
            f"The loss of {self.run.spec.method} is not finite at step {step.step} ({values}) on clips "
            f"{', '.join(step.clips)}; {last}. Lower optimizer.lr, set clip_norm, or use precision fp32."
        )


def _note(terms: Mapping[str, float], meter: Meter) -> str:
    shown = "  ".join(f"{name} {value:.4f}" for name, value in terms.items())
    return f"{shown}  {meter.clips_per_second:.2f} clips/s  {meter.memory_gib():.1f} GiB"
