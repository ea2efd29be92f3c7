"""The loop over epochs and steps, from a training state to the end of training."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import tensorflow as tf

from tlcluster.dataset.shards import Index
from tlcluster.records import EpochRecord
from tlcluster.training.data import Feed
from tlcluster.training.diary import Diary
from tlcluster.training.evaluate import Evaluator
from tlcluster.training.inputs import Inputs, Step, split_part, training_steps
from tlcluster.training.ledger import Ledger
from tlcluster.training.network import Network
from tlcluster.training.progress import Phase
from tlcluster.training.reporter import Reporter
from tlcluster.training.saves import Saves
from tlcluster.training.schedule import Schedule, training_rows
from tlcluster.training.state import (
    TrainingState,
    after_epoch,
    after_steps,
    is_over,
    progress_of,
    steps_of,
)
from tlcluster.training.step import training_call
from tlcluster.training.task import Task, shown_view

STEPS_PER_CALL = 8
"""Steps in one call of the graph. Progress, checkpoints and stop requests come between calls."""


@dataclass(frozen=True)
class Parts:
    """What one worker trains with."""

    task: Task
    strategy: tf.distribute.Strategy
    index: Index
    schedule: Schedule
    inputs: Inputs
    network: Network
    evaluator: Evaluator
    saves: Saves
    reporter: Reporter
    ledger: Ledger
    diary: Diary


class Loop:
    """Trains one epoch after another. All workers run it together."""

    def __init__(self, parts: Parts, state: TrainingState) -> None:
        """
        Args:
            parts: of this worker.
            state: where training stands; the network holds its weights.
        """
        self.state = state
        self.first_call_ended: float | None = None
        """End of the first steps of this attempt, in seconds since 1970."""
        self._parts = parts
        self._call = training_call(
            parts.strategy,
            parts.inputs.logits_of,
            parts.network.trainable,
            parts.network.optimizer,
            augment_seed=parts.inputs.augment_seed,
            augmentation=parts.task.experiment.augmentation,
            label_smoothing=parts.task.experiment.label_smoothing,
            mixes=parts.task.experiment.mixup > 0,
        )

    def epochs(self) -> Iterator[tuple[EpochRecord, ...]]:
        """Train until epochs or patience run out, or until asked to stop.

        Yields:
            After every epoch, the records of all finished epochs.
        """
        feed = Feed(self._parts.strategy, self._steps, self._parts.inputs.spec)
        while not is_over(self.state, self._parts.schedule):
            if not self._train(feed):
                return
            self._show(Phase.VALIDATING)
            self._validate()
            yield self.state.history

    def _steps(self) -> Iterator[Step]:
        parts = self._parts
        rows = training_rows(
            parts.schedule,
            parts.index.shard_rows("train"),
            epoch=self.state.epoch,
            step=self.state.step,
            view=partial(shown_view, parts.task),
        )
        return training_steps(parts.inputs, rows)

    def _train(self, feed: Feed) -> bool:
        """Do the remaining steps of the epoch; False if asked to stop before its end."""
        parts = self._parts
        while (left := parts.schedule.steps - self.state.step) > 0:
            # The very first step has a call of its own: its end is the end of the start-up.
            first = self.state.epoch == 1 and self.state.step == 0
            steps = 1 if first else min(STEPS_PER_CALL, left)
            start = time.monotonic()
            what = steps_of(self.state.epoch, self.state.step, steps)
            with feed.own_errors(), parts.diary.together(what):
                sums = self._call(feed.iterator, steps, parts.reporter.stop_requested)
            end = time.monotonic()
            self.state = after_steps(
                self.state, steps, sums, end - start, waited=feed.waited(steps, start, end)
            )
            self.first_call_ended = self.first_call_ended or time.time()
            # Stop requests travel in the same sum as the losses, so that all workers stop after
            # the same step.
            if sums.stops:
                return False
            self._show(Phase.TRAINING)
            parts.ledger.look()
            if parts.saves.is_due():
                parts.diary.does(f"checkpoint after {what}")
                parts.saves.save(self.state)
        return True

    def _validate(self) -> None:
        """Validate, keep the weights if they are the best so far, and begin the next epoch."""
        parts = self._parts
        parts.diary.does(f"validation of epoch {self.state.epoch}")
        start = time.monotonic()
        with parts.network.tested():
            valid = parts.evaluator.scores(
                split_part(parts.inputs, parts.index, "valid", parts.schedule)
            )
            seconds = time.monotonic() - start
            self.state = after_epoch(
                self.state,
                valid,
                parts.schedule,
                validation_seconds=seconds,
                sum_seconds=parts.evaluator.sum_seconds,
                used=parts.ledger.since(),
            )
            if self.state.improved:
                parts.network.keep_best()

    def _show(self, phase: Phase) -> None:
        self._parts.reporter.show(progress_of(self.state, self._parts.schedule, phase))
