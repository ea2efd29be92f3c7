"""How far the workers of an experiment are, as they tell the driver."""

import time
from collections.abc import Callable
from typing import NamedTuple


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
    phase: str
    """`training`, `validating` or `testing`."""


POST_SECONDS = 0.1
"""Between two posts of one phase, at least: a few steps of a head take as long as one post."""


def now_and_then(post: Callable[[Progress], bool]) -> Callable[[Progress], bool]:
    """`post`, less often: a new phase at once, what follows in it every `POST_SECONDS` at most.

    What is not posted is answered with False; the next post brings a wish to stop.
    """
    phase, due = "", 0.0

    def progress(now: Progress) -> bool:
        nonlocal phase, due
        if now.phase == phase and time.monotonic() < due:
            return False
        asked_to_stop = post(now)
        phase, due = now.phase, time.monotonic() + POST_SECONDS
        return asked_to_stop

    return progress


def epochs_finished(progress: Progress | None) -> int:
    """Epochs that have been validated, those before an interruption included."""
    if progress is None:
        return 0
    return progress.epoch if progress.phase == "testing" else progress.epoch - 1
