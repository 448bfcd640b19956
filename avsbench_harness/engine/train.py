"""The training loop that all methods share.

A run can be stopped at any moment and started again with the same command: it goes on from its last
checkpoint and, on the CPU, ends with the same bits as a run that was not stopped. To that end the order
of clips, the augmentation, the learning rate and every random draw are functions of the spec and the step.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from avsbench_harness import distributed
from avsbench_harness.console import progress_bar
from avsbench_harness.data.batch import Batch
from avsbench_harness.data.frame_sampling import ThinSounds, thin_clips, thin_files
from avsbench_harness.data.loader import ClipDataset, epoch_order, load
from avsbench_harness.engine import optim
from avsbench_harness.engine.acceleration import speed_up
from avsbench_harness.engine.checkpoint import (
    Best,
    TrainState,
    load_checkpoint,
    save_checkpoint,
)
from avsbench_harness.engine.cost import run_cost
from avsbench_harness.engine.decode import keep_decoded
from avsbench_harness.engine.heartbeat import TRAINING, beating, note_progress, take_claim
from avsbench_harness.engine.inputs import audio_inputs, maskige_inputs, training_clips
from avsbench_harness.engine.interrupt import StopRequest, stop_request
from avsbench_harness.engine.memory import out_of_memory
from avsbench_harness.engine.metric_buffer import Reading, Readings
from avsbench_harness.engine.predict import evaluation_clips, validate
from avsbench_harness.engine.progress import Meter, TrainingLog
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.step import Stepper, own_share
from avsbench_harness.engine.system import build_system, set_determinism
from avsbench_harness.errors import AvsbError, Busy, MissingDataError, TooManyProcesses
from avsbench_harness.files import read_json, sweep_temporaries, write_json
from avsbench_harness.method import TrainingSummary, Validation
from avsbench_harness.weights.tensors import load_tensors, save_tensors

logger = logging.getLogger(__name__)


#: Seconds between checkpoints inside an epoch; a test may shorten it.
CHECKPOINT_SECONDS = float(os.environ.get("AVSB_CHECKPOINT_SECONDS", "600"))


def train(run: Run) -> TrainingSummary:
    """Train a run to its end, going on where it stopped; one that is finished is not trained again.

    Raises:
        AvsbError: the loss is not finite, or another process trains this run.
        Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    with ExitStack() as stack:
        with distributed.main_process_first():
            if distributed.rank() == 0:
                stack.enter_context(alone(run))
        stop = stack.enter_context(stop_request())
        done = finished(run) or _train(run, stop)
        if distributed.rank() == 0:
            shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
        return done


@contextmanager
def alone(run: Run) -> Iterator[None]:
    """Hold a run's folder, and show signs of life there.

    Raises:
        Busy: another process holds it.
    """
    lock = take_claim(run.folder, TRAINING)
    if lock is None:
        raise Busy(f"Another process works on {run.id}; wait for it or stop it.")
    try:
        with beating(run.folder):
            sweep_temporaries(run.folder)
            yield
    finally:
        lock.release()


def finished(run: Run) -> TrainingSummary | None:
    """What a finished training ended with, or ``None``."""
    path = run.folder / "training.json"
    if not (path.is_file() and run.weights_file.is_file()):
        return None
    return TrainingSummary.parse(read_json(path), str(path))


def _train(run: Run, stop: StopRequest) -> TrainingSummary:
    set_determinism(run)
    with distributed.main_process_first():
        dataset = training_set(run)
        if distributed.rank() == 0:
            write_json(run.folder / "spec.json", run.spec.model_dump(mode="json"))
        total, per_epoch = optim.length(run.recipe, len(dataset))
        keep_decoded(dataset, "train", stop, ahead=total >= per_epoch)
    trainer = Trainer(run, dataset, stop)
    path = run.folder / "log.jsonl" if distributed.rank() == 0 else Path(os.devnull)
    with closing(TrainingLog(path, trainer.state.step)) as log:
        trainer.loop(log)
    with distributed.main_process_first():
        if distributed.rank() == 0:
            trainer.finish()
    done = finished(run)
    assert done is not None  # rank 0 has just written it
    return done


def training_set(run: Run) -> ClipDataset:
    """The clips that a run trains on, as its recipe wants them.

    Raises:
        MissingDataError: there are no clips, or something of theirs is missing.
        TooManyProcesses: there are fewer clips, or fewer in a batch.
    """
    if not run.dataset.clips("train"):
        raise MissingDataError(f"The train split of {run.dataset.root} has no clips.")
    clips = training_clips(run)
    _check_shares(run, len(clips))
    audio, maskiges = audio_inputs(run, "train", clips), maskige_inputs(run, "train")
    if (frames := run.recipe.frames) is not None:
        audio = ThinSounds(audio, clips, frames)
        maskiges = None if maskiges is None else thin_files(maskiges, clips, frames)
        clips = thin_clips(clips, frames)
    return ClipDataset(
        clips,
        run.task,
        audio,
        size=run.recipe.image_size,
        maskiges=maskiges,
        fit=run.recipe.train_fit,
        augment=run.recipe.augment,
        seed=run.spec.seed,
    )


def _check_shares(run: Run, clips: int) -> None:
    """Refuse processes for which there would be nothing to do."""
    processes, batch = distributed.world_size(), run.recipe.batch_size
    if processes > min(clips, batch):
        raise TooManyProcesses(
            f"{processes} processes need at least as many clips in a batch, and there are "
            f"{min(clips, batch)} (batch_size {batch}, {clips} training clips); start fewer processes."
        )


class Trainer:
    """One run's training: its system, its optimiser and how far it has come."""

    def __init__(self, run: Run, dataset: ClipDataset, stop: StopRequest) -> None:
        self.run = run
        self.recipe = run.recipe
        self.dataset = dataset
        self.stop = stop
        self.checkpoints = run.folder / "checkpoints"
        self.total, self.per_epoch = optim.length(run.recipe, len(dataset))
        stored = load_checkpoint(self.checkpoints)
        self.system = speed_up(build_system(run, pretrained=stored is None).to(run.device), self.recipe)
        self.stepper = Stepper(run, self.system)
        self.readings = Readings(run.device)
        self.state = TrainState()
        if stored is not None:
            self.system.load_state_dict(stored.weights)
            optim.restore(self.stepper.optimizer, stored.optimizer)
            if stored.state.scaler:
                self.stepper.scaler.load_state_dict(dict(stored.state.scaler))
            self.state = stored.state
            logger.info(f"Going on from step {self.state.step} of {self.total}.")
        self._saved = time.monotonic()

    def loop(self, log: TrainingLog) -> None:
        """Steps and validations until the end."""
        meter = Meter(self.run.device)
        with progress_bar() as progress:
            display = progress.add_task("epoch 1", total=self.total, completed=self.state.step, note="")
            while True:
                self._validate_if_due(log)
                if self.state.step >= self.total:
                    return
                epoch = self.state.step // self.per_epoch
                optim.set_training(self.system, self.system.model.backbone, self.recipe.backbone, epoch)
                self.stepper.prepare()
                for ids, batch in self._rest_of_epoch(epoch):
                    started = time.monotonic()
                    try:
                        terms = self._step(batch, ids)
                    except torch.OutOfMemoryError as error:
                        raise out_of_memory(
                            error, self.run, self.system.losses, self.stepper.optimizer, batch
                        ) from None
                    except AvsbError:
                        self._read(log)  # a step before it may have been the cause
                        raise
                    self.state = self.state.model_copy(update={"step": self.state.step + 1})
                    meter.tick(len(ids))
                    note_progress(self.state.step, self.total, meter.clips_per_second, len(ids))
                    figures = self.system.model.diagnostics()
                    self.readings.add(self.state.step, epoch + 1, ids, terms, figures)
                    if read := self.readings.due:
                        progress.update(
                            display,
                            completed=self.state.step,
                            description=f"epoch {epoch + 1}",
                            note=_note(self._read(log), meter),
                        )
                    self._spend(time.monotonic() - started)  # a device's work shows when it is read
                    if read:
                        self._stop_if_asked(log)
                    if time.monotonic() - self._saved > CHECKPOINT_SECONDS:
                        self._save(log)
                    if self._due_inside_epoch():
                        break
                else:
                    self._save(log)

    def finish(self) -> None:
        """Write the selected weights and how they came about."""
        best = self.state.best
        weights: Mapping[str, Tensor] = (
            self.system.state_dict() if best is None else load_tensors(self.checkpoints / best.file)
        )
        selected = self.state.step if best is None else best.step
        save_tensors(self.run.weights_file, weights)
        size = run_cost(self.run, self.system.model)
        checkpoint = TrainingSummary(
            weights_file=self.run.weights_file.name,
            steps=self.state.step,
            selected_step=selected,
            validations=self.state.validations,
            seconds=self.state.seconds,
            device=self.run.device,
            processes=distributed.world_size(),
            clips_per_second=self._clips_seen() / max(self.state.seconds, 1e-9),
            memory_gib=Meter(self.run.device).memory_gib() or None,
            parameters=size.parameters,
            gmacs=size.gmacs,
        )
        write_json(self.run.folder / "training.json", checkpoint.model_dump(mode="json"))

    def _clips_seen(self) -> int:
        """How many clips the steps so far took; the last batch of an epoch may be smaller than the others."""
        epochs, steps = divmod(self.state.step, self.per_epoch)
        return epochs * len(self.dataset) + steps * self.recipe.batch_size

    def _rest_of_epoch(self, epoch: int) -> Iterator[tuple[list[str], Batch]]:
        """The batches of an epoch that are still to be done, with their clips' ids."""
        first = epoch * self.per_epoch
        order = epoch_order(len(self.dataset), self.recipe.batch_size, self.run.spec.seed, epoch)
        rest = order[self.state.step - first : self.total - first]
        own = [keys[own_share(len(keys))] for keys in rest]
        batches = load(self.dataset, own, workers=self.run.workers, device=self.run.device)
        for keys, batch in zip(rest, batches, strict=True):
            ids = [self.dataset.clips[index].id for index, _ in keys]
            yield ids, batch.to(self.run.device, non_blocking=True)

    def _step(self, batch: Batch, ids: list[str]) -> dict[str, Tensor]:
        """One optimiser step on this process's share of a batch; returns the loss terms of all of it."""
        step = self.state.step
        factor = optim.lr_factor(self.recipe.schedule, step, self.total, self.per_epoch)
        return self.stepper.step(batch, len(ids), step, factor)

    def _read(self, log: TrainingLog) -> dict[str, float]:
        """Log the steps whose losses were not read yet, and return the last one's.

        Raises:
            AvsbError: one is not finite.
        """
        terms: dict[str, float] = {}
        for reading in self.readings.take():
            terms = reading.terms
            if not all(map(math.isfinite, terms.values())):
                raise self._not_finite(reading)
            log.write({"step": reading.step, "epoch": reading.epoch, **reading.figures, **terms})
        return terms

    def _spend(self, seconds: float) -> None:
        self.state = self.state.model_copy(update={"seconds": self.state.seconds + seconds})

    @cached_property
    def _validation_clips(self) -> ClipDataset:
        with distributed.main_process_first():
            return evaluation_clips(self.run, "val", self.stop)

    def _due(self) -> bool:
        """Whether the recipe wants a validation after this step, and there was none yet."""
        state, rule = self.state, self.recipe.validation
        if self.recipe.select.mode == "last" or state.step in (0, state.validated):
            return False
        if state.step == self.total:
            return True
        if rule.every_steps is not None:
            return state.step % rule.every_steps == 0
        epoch, rest = divmod(state.step, self.per_epoch)
        return rest == 0 and epoch >= rule.first and (epoch - rule.first) % rule.every == 0

    def _due_inside_epoch(self) -> bool:
        return self.state.step % self.per_epoch != 0 and self._due()

    def _validate_if_due(self, log: TrainingLog) -> None:
        """At a step that the recipe names, score the validation split and keep the best."""
        state = self.state
        if not self._due():
            return
        self._read(log)
        self._stop_if_asked(log)
        epoch = -(-state.step // self.per_epoch)  # counted from 1, the last one possibly cut short
        metrics = validate(self.run, self.system, self._validation_clips, self.stop)
        value = metrics.get(name := self.recipe.metric(self.run.task))
        if value is None:
            raise AvsbError(f"The validation gives no '{name}' to select by; it gives {', '.join(metrics)}.")
        log.write({"step": state.step, "epoch": epoch, "val": metrics})
        logger.info(f"epoch {epoch}: val {name} {value:.4f}")
        best = state.best
        if best is None or value > best.value:
            best = Best(step=state.step, value=value, file=f"best-{state.step:08d}.safetensors")
            if distributed.rank() == 0:
                save_tensors(self.checkpoints / best.file, self.system.state_dict())
        validations = [*state.validations, Validation(step=state.step, metrics=metrics)]
        self.state = state.model_copy(update={"best": best, "validations": validations})
        self._save(log)

    def _save(self, log: TrainingLog) -> None:
        """TrainingSummary now; weights that are no longer the best go once it stands."""
        self._read(log)  # weights that came of a loss that is not finite are not kept
        self._saved = time.monotonic()
        self.state = self.state.model_copy(update={"scaler": self.stepper.scaler.state_dict()})
        if distributed.rank() != 0:
            return
        save_checkpoint(self.checkpoints, self.state, self.system.state_dict(), self.stepper.optimizer)
        for old in self.checkpoints.glob("best-*.safetensors"):
            if self.state.best is None or old.name != self.state.best.file:
                old.unlink()

    def _stop_if_asked(self, log: TrainingLog) -> None:
        if self.stop.anywhere():
            self._save(log)
            raise self.stop.error(
                f"The state after step {self.state.step} of {self.total} is saved; "
                "the same command goes on from there."
            )

    def _not_finite(self, reading: Reading) -> AvsbError:
        values = ", ".join(f"{name} {value}" for name, value in reading.terms.items() if name != "loss")
        saved = sorted(self.checkpoints.glob("step-*"))
        last = f"the last good checkpoint is {saved[-1]}" if saved else "there is no checkpoint yet"
        return AvsbError(
            f"The loss is not finite at step {reading.step} ({values}) on clips {', '.join(reading.clips)}; "
            f"{last}. Lower optimizer.lr, set clip_norm, or use precision fp32."
        )


def _note(terms: Mapping[str, float], meter: Meter) -> str:
    shown = "  ".join(f"{name} {value:.4f}" for name, value in terms.items())
    return f"{shown}  {meter.clips_per_second:.2f} clips/s  {meter.memory_gib():.1f} GiB"
