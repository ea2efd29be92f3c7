"""One start of the workers of a training, and how it ended."""

import re
import threading
from collections.abc import Callable
from typing import Any

import ray
from ray.train import TrainingFailedError

from tlcluster.errors import StoreUnavailable, UserError
from tlcluster.orchestration.ray_internals import never_placed, noticed, worker_failures
from tlcluster.orchestration.state import Outcome

LONGEST_REASON = 500
"""Characters of an error message that are kept."""

EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|StoreUnavailable)\b")
"""How a traceback begins the message of its exception."""


class Attempt:
    """Trains a replicate once, in a thread of its own."""

    def __init__(
        self,
        key: str,
        board: Any,
        *,
        prepare: Callable[[], None],
        trainer: Callable[[], Any],
        finished: Callable[[], bool],
        leaving: threading.Event,
    ) -> None:
        """
        Args:
            key: of the replicate.
            board: the actor of `tlcluster.orchestration.board.Board`.
            prepare: called first; may wait for storage.
            trainer: makes the trainer whose `fit` trains.
            finished: whether the workers have left their result; may wait for storage.
            leaving: set while the driver leaves Ray. Then nothing is recorded, and Ray is asked
                nothing: it would end the process.
        """
        self._key, self._board = key, board
        self._prepare, self._trainer, self._finished = prepare, trainer, finished
        self._leaving = leaving
        self.outcome: Outcome | None = None
        """None while the attempt is under way."""
        # A daemon: if Ray never gives the workers their resources, the thread never ends.
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _run(self) -> None:
        outcome = Outcome("the driver failed; its error is printed above", fatal=True)
        try:
            outcome = self._attempt()
        except ray.exceptions.RayError as failure:
            outcome = Outcome(reason(failure))
        except (UserError, StoreUnavailable) as failure:
            outcome = Outcome(str(failure), fatal=True)
        finally:
            self.outcome = outcome

    def _attempt(self) -> Outcome:
        self._prepare()
        ray.get(self._board.begin.remote(self._key))
        error, placed = None, True
        try:
            self._trainer().fit()
        except (TrainingFailedError, ray.exceptions.RayError) as failure:
            error, placed = reason(failure), not never_placed(failure)
        if self._leaving.is_set():
            return Outcome(error)
        if error is not None:
            # If the controller died, the resources of its workers are still taken.
            for group in ray.get(self._board.reservations.remote(self._key)):
                ray.util.remove_placement_group(group)
        fatal = ray.get(self._board.failure.remote(self._key))
        if fatal is None and not placed:
            return Outcome(error, placed=False)
        return Outcome(fatal or error, fatal is not None, self._finished())


def reason(failure: Exception) -> str:
    """What went wrong, in one line.

    Args:
        failure: the exception of an attempt. If workers failed, the text of each worker's exception
            ends with the text of the original one.
    """
    failures = worker_failures(failure)
    for rank, error in sorted(failures.items()):
        # The errors of the other workers only say that they lost this one.
        if isinstance(noticed(error), ray.exceptions.RayActorError):
            return died(rank)
    lines = str(failures[min(failures)]).splitlines()
    # A message may have many lines, of which the first begins with the exception's name.
    begin = max((n for n, line in enumerate(lines) if EXCEPTION.match(line)), default=0)
    text = " ".join(" ".join(lines[begin:]).split()) or type(failure).__name__
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"


def died(rank: int) -> str:
    """What is said of a worker whose process is gone."""
    return (
        f"the process of worker {rank} died: it was killed, ran out of memory or crashed, or its "
        "node was lost; Ray's logs tell more"
    )
