"""Where the workers, the controllers and the driver of a run leave messages for each other."""

import time
from itertools import chain
from typing import NamedTuple

from tlcluster.training.diary import Pages
from tlcluster.training.progress import Progress, epochs_finished


class Since(NamedTuple):
    """Something that began at a time, in seconds of `time.monotonic`."""

    time: float
    why: str


class Seen(NamedTuple):
    """What the board holds of one training."""

    posts: tuple[Progress, ...] = ()
    """The latest progress; before it, the last of each epoch that has passed since the board was
    read before."""
    workers: int = 0
    """Workers that have started."""
    away: Since | None = None
    """Storage does not answer its workers."""


class Board:
    """Holds the messages of all trainings, by their keys. A Ray actor on the driver's node.

    If its process dies, Ray starts it again. What it forgets, workers post again.
    """

    def __init__(self) -> None:
        self._progress: dict[str, list[Progress]] = {}
        self._workers: dict[str, list[object]] = {}
        self._controllers: dict[str, list[object]] = {}
        self._reservations: dict[str, list[object]] = {}
        self._away: dict[str, dict[int, Since]] = {}
        self._diaries: dict[str, list[tuple[str, Pages]]] = {}
        self._failures: dict[str, str] = {}
        self._stopped: set[str] = set()

    def begin(self, training: str) -> None:
        """Forget what an earlier attempt left."""
        for notes in (
            self._progress,
            self._workers,
            self._controllers,
            self._reservations,
            self._away,
            self._diaries,
        ):
            notes.pop(training, None)

    def hello(self, training: str, worker: object) -> None:
        """A worker has started; `worker` is its actor handle."""
        self._workers.setdefault(training, []).append(worker)

    def workers(self, training: str) -> list[object]:
        return self._workers.get(training, [])

    def keeps(self, training: str, node: str, diary: Pages) -> None:
        """A worker on a node, named by its id, keeps a diary."""
        self._diaries.setdefault(training, []).append((node, diary))

    def diaries(self, training: str) -> list[tuple[str, Pages]]:
        """The node and the diary of each worker."""
        return self._diaries.get(training, [])

    def controlled(self, training: str, controller: object) -> None:
        """A controller looks after the workers; `controller` is its actor handle."""
        self._controllers.setdefault(training, []).append(controller)

    def everyone(self) -> list[object]:
        """The controllers, then the workers, of the latest attempts of all trainings.

        Some may be dead.
        """
        return [*chain(*self._controllers.values()), *chain(*self._workers.values())]

    def reserved(self, training: str, group: object) -> None:
        """The workers have their resources; `group` is their placement group."""
        self._reservations.setdefault(training, []).append(group)

    def reservations(self, training: str) -> list[object]:
        return self._reservations.get(training, [])

    def post(self, training: str, progress: Progress) -> bool:
        """Note the progress; True if the training should stop."""
        posts = self._progress.setdefault(training, [])
        if posts and epochs_finished(posts[-1]) == epochs_finished(progress):
            posts.pop()
        posts.append(progress)
        return training in self._stopped

    def away(self, training: str, rank: int, seconds: float, why: str) -> None:
        """Storage has not answered a worker for so many seconds, or does again: `why` is empty."""
        ranks = self._away.setdefault(training, {})
        if why:
            ranks[rank] = Since(time.monotonic() - seconds, why)
        else:
            ranks.pop(rank, None)

    def fail(self, training: str, why: str) -> None:
        """A worker met an error that no new attempt can avoid."""
        self._failures.setdefault(training, why)

    def failure(self, training: str) -> str | None:
        """The first error that no new attempt can avoid."""
        return self._failures.get(training)

    def stop(self, training: str) -> None:
        self._stopped.add(training)

    def read(self) -> dict[str, Seen]:
        """What there is of each training. Epochs that have passed are returned once."""
        names = {*self._progress, *self._workers, *self._away}
        seen = {
            name: Seen(
                tuple(self._progress.get(name, ())),
                len(self._workers.get(name, ())),
                min(self._away.get(name, {}).values(), default=None),
            )
            for name in names
        }
        for posts in self._progress.values():
            del posts[:-1]
        return seen
