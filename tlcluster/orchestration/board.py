"""Where workers and driver leave word for each other during a run."""

from tlcluster.training.progress import Progress, epochs_finished


class Board:
    """Where workers post their progress and hear that they should stop. A Ray actor in a run."""

    def __init__(self) -> None:
        self._progress: dict[str, list[Progress]] = {}
        self._workers: dict[str, list[object]] = {}
        self._controllers: dict[str, list[object]] = {}
        self._reservations: dict[str, list[object]] = {}
        self._failures: dict[str, str] = {}
        self._stopped: set[str] = set()

    def begin(self, experiment: str) -> None:
        """Forget what an earlier attempt left."""
        self._progress.pop(experiment, None)
        self._workers.pop(experiment, None)
        self._controllers.pop(experiment, None)
        self._reservations.pop(experiment, None)

    def hello(self, experiment: str, worker: object) -> None:
        """A worker has started; `worker` is its actor handle."""
        self._workers.setdefault(experiment, []).append(worker)

    def workers(self, experiment: str) -> list[object]:
        return self._workers.get(experiment, [])

    def controlled(self, experiment: str, controller: object) -> None:
        """Somebody looks after its workers; `controller` is the actor's handle."""
        self._controllers.setdefault(experiment, []).append(controller)

    def controllers(self) -> list[object]:
        """Those of all experiments that have begun, whether they are still alive or not."""
        return [one for controllers in self._controllers.values() for one in controllers]

    def reserved(self, experiment: str, group: object) -> None:
        """Its workers have places; `group` is their placement group."""
        self._reservations.setdefault(experiment, []).append(group)

    def reservations(self, experiment: str) -> list[object]:
        return self._reservations.get(experiment, [])

    def post(self, experiment: str, progress: Progress) -> bool:
        """Note the progress; True if the experiment should stop."""
        posts = self._progress.setdefault(experiment, [])
        if posts and epochs_finished(posts[-1]) == epochs_finished(progress):
            posts.pop()
        posts.append(progress)
        return experiment in self._stopped

    def fail(self, experiment: str, why: str) -> None:
        """A worker met an error that no new attempt can mend."""
        self._failures.setdefault(experiment, why)

    def stop(self, experiment: str) -> None:
        self._stopped.add(experiment)

    def verdict(self, experiment: str) -> tuple[str | None, bool]:
        """Why no new attempt can mend it, if so; and whether it was asked to stop."""
        return self._failures.get(experiment), experiment in self._stopped

    def read(self) -> dict[str, tuple[Progress, ...]]:
        """The last progress of each experiment; before it, the last ones of the epochs that have
        passed since this was read before."""
        unread = {experiment: tuple(posts) for experiment, posts in self._progress.items()}
        for posts in self._progress.values():
            del posts[:-1]
        return unread
