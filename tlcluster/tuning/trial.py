"""One trial: a training that is watched epoch by epoch and never tested. It does not know Ray."""

import contextlib
import gc
from collections.abc import Iterator
from typing import NamedTuple

import tf_keras as keras

from tlcluster.records import EpochRecord
from tlcluster.training.loop import Loop
from tlcluster.training.progress import Progress
from tlcluster.training.setup import Device, configure_tensorflow
from tlcluster.training.state import is_over
from tlcluster.training.task import Task
from tlcluster.training.train import Place, newest_state, prepared


class Look(NamedTuple):
    """How far a trial is after an epoch."""

    history: tuple[EpochRecord, ...]
    best_epoch: int
    over: bool
    """Epochs or patience have run out."""
    seconds: float
    """Time that the trial took, earlier attempts included."""


class Trials:
    """Trains one trial after another in this process, which pays for TensorFlow's start once."""

    def __init__(self) -> None:
        self._device: Device | None = None
        self._open = contextlib.ExitStack()
        self._looks: Iterator[Look] = iter(())

    def begin(self, task: Task, imagenet_weights: bytes | None) -> None:
        """Leave the trial at hand, and get ready for another, from its newest checkpoint."""
        self.leave()
        if self._device is None:
            self._device = configure_tensorflow(task.gpus, task.threads, task.cache)
        self._looks = self._trained(task, imagenet_weights, self._device)

    def epoch(self) -> Look:
        """Train and validate one more epoch.

        Raises:
            UserError, StoreUnavailable: see `tlcluster.training.train.train`.
        """
        return next(self._looks)

    def leave(self) -> None:
        """Free what the trial at hand holds."""
        self._looks = iter(())
        self._open.close()
        keras.backend.clear_session()
        gc.collect()

    def _trained(
        self, task: Task, imagenet_weights: bytes | None, device: Device
    ) -> Iterator[Look]:
        place = Place(0, 1, report=lambda _: None, progress=_go_on)
        parts, _, _ = self._open.enter_context(prepared(task, place, imagenet_weights, device))
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
