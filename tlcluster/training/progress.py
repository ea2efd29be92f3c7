"""How far the workers of an experiment are, as they report it to the driver."""

import enum
import time
from collections.abc import Callable
from typing import NamedTuple


class Phase(enum.StrEnum):
    """What the workers of an experiment do."""

    STARTING = "starting"
    """Until their first report."""
    TRAINING = "training"
    VALIDATING = "validating"
    TESTING = "testing"
    WAITING = "waiting for storage"


class Progress(NamedTuple):
    """How far the workers of an experiment are."""

    epoch: int
    """The epoch in progress, counted from 1; the last one while testing."""
    epochs: int
    step: int
    steps: int
    images_per_second: float
    accuracy: float | None
    """Validation accuracy of the last finished epoch."""
    best_accuracy: float | None
    phase: Phase
    """`TRAINING`, `VALIDATING` or `TESTING`."""


POST_SECONDS = 0.1
"""Least time between two posts of one phase. A few steps of a head take as long as one post."""


def now_and_then(post: Callable[[Progress], bool]) -> Callable[[Progress], bool]:
    """Wrap `post` so that it is called less often.

    A new phase is posted at once, later progress in it at most every `POST_SECONDS`. Progress that
    is not posted returns False; the next post returns the stop request.
    """
    phase: Phase | None = None
    due = 0.0

    def progress(now: Progress) -> bool:
        nonlocal phase, due
        if now.phase == phase and time.monotonic() < due:
            return False
        asked_to_stop = post(now)
        phase, due = now.phase, time.monotonic() + POST_SECONDS
        return asked_to_stop

    return progress


def epochs_finished(progress: Progress | None) -> int:
    """Number of epochs that have been validated, including those before an interruption."""
    if progress is None:
        return 0
    return progress.epoch if progress.phase == Phase.TESTING else progress.epoch - 1


def seconds_left(progress: Progress, elapsed: float, resumed: int) -> float | None:
    """Estimate the time until the last epoch at the present pace. Early stopping may end it sooner.

    Args:
        progress: how far the workers are.
        elapsed: seconds that they took for it.
        resumed: epochs that were finished before.

    Returns:
        Seconds; None while it is too early to say.
    """
    done = progress.epoch - 1 + progress.step / max(progress.steps, 1)
    if done - resumed < 0.05:
        return None
    return elapsed / (done - resumed) * (progress.epochs - done)
