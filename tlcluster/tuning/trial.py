"""One trial: a training that is watched epoch by epoch and never tested. It does not know Ray."""

import contextlib
import gc
import time
from collections.abc import Iterator
from typing import NamedTuple

import tf_keras as keras

from tlcluster.records import EpochRecord
from tlcluster.training.loop import Loop
from tlcluster.training.progress import Progress
from tlcluster.training.state import is_over
from tlcluster.training.task import Task
from tlcluster.training.train import Place, Started, newest_state, prepared, started


class Look(NamedTuple):
    """How far a trial is after an epoch."""

    history: tuple[EpochRecord, ...]
    best_epoch: int
    over: bool
    """Epochs or patience have run out."""
    seconds: float
    """Time that the trial took, earlier attempts included."""


class Trials:
    """Trains one trial after another in this process, which pays for TensorFlow's start once.

    With several workers, each of them calls `begin`, `epoch` and `leave` together with the others.
    """

    def __init__(self, rank: int = 0, workers: int = 1) -> None:
        """
        Args:
            rank: of this worker.
            workers: how many train each trial; TF_CONFIG says where they are.
        """
        self._place = Place(rank, workers, report=lambda _: None, progress=_go_on)
        self._worker: Started | None = None
        self._open = contextlib.ExitStack()
        self._looks: Iterator[Look] = iter(())

    def begin(self, task: Task, imagenet_weights: bytes | None) -> None:
        """Leave the trial at hand, and get ready for another, from its newest checkpoint.

        Raises:
            UserError: see `tlcluster.training.train.started`.
        """
        self.leave()
        if self._worker is None:
            # Once, and until the process ends: TensorFlow cannot stop the server that it starts.
            self._worker = self._open.enter_context(started(task, self._place.world_size))
        self._looks = self._trained(task, imagenet_weights, self._worker)

    def epoch(self) -> Look:
        """Train and validate one more epoch.

        Raises:
            UserError, StoreUnavailable: see `tlcluster.training.train.train`.
        """
        return next(self._looks)

    def leave(self) -> None:
        """Free what the trial at hand holds."""
        self._looks = iter(())
        keras.backend.clear_session()
        gc.collect()

    def _trained(
        self, task: Task, imagenet_weights: bytes | None, worker: Started
    ) -> Iterator[Look]:
        began = time.monotonic()
        parts, _, _ = prepared(task, self._place, imagenet_weights, worker, began)
        del imagenet_weights
        state = newest_state(parts)
        loop = Loop(parts, state)
        if is_over(state, parts.schedule):
            yield Look(state.history, state.best_epoch or 0, True, parts.saves.wall_seconds())
        for history in loop.epochs():
            over = is_over(loop.state, parts.schedule)
            yield Look(history, loop.state.best_epoch or 0, over, parts.saves.wall_seconds())


def _go_on(_: Progress) -> bool:
    return False
