"""When a training is saved and how it continues: checkpoints of one worker over time."""

import time
from collections.abc import Callable, Sequence

from tlcluster.errors import StoreUnavailable
from tlcluster.storage.protocol import Store
from tlcluster.training.checkpoint import (
    Checkpoint,
    Loaded,
    delete_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from tlcluster.training.network import Network
from tlcluster.training.schedule import Schedule
from tlcluster.training.state import TrainingState, is_possible

LOOKS = 90
"""How often workers look for checkpoints, once a second, until all of them see the same. A client
of a network file system may show an old listing for a minute."""
LOOK_SECONDS = 1.0


def agreed(
    load: Callable[[], Loaded | None], everyones: Callable[[str], Sequence[str]]
) -> Loaded | None:
    """What `load` returns when it is the same for all workers; all of them call it together.

    Workers that continued from different checkpoints would train different models.

    Raises:
        StoreUnavailable: it stays different.
    """
    for _ in range(LOOKS):
        loaded = load()
        if len(set(everyones(loaded.key if loaded else "none"))) == 1:
            return loaded
        time.sleep(LOOK_SECONDS)
    raise StoreUnavailable(
        "the workers' nodes do not see the same checkpoints; the file system of --output shows "
        "them different files"
    )


class Saves:
    """Loads and writes the checkpoints of one training. Every worker loads; the first writes."""

    def __init__(
        self,
        run: Store,
        folder: str,
        network: Network,
        *,
        writes: bool,
        every: float,
        began: float,
        earlier_seconds: float,
    ) -> None:
        """
        Args:
            run: the run's folder.
            folder: of the training, in the run's.
            network: what is saved and restored.
            writes: whether this worker writes.
            every: seconds between two checkpoints.
            began: monotonic time at which this attempt began.
            earlier_seconds: time with workers running in earlier attempts.
        """
        self._run, self._folder, self._network = run, folder, network
        self._writes, self._every = writes, every
        self._began, self._earlier_seconds = began, earlier_seconds
        self._last = time.monotonic()

    def wall_seconds(self) -> float:
        """Time with workers running so far, all attempts together."""
        return self._earlier_seconds + time.monotonic() - self._began

    def load(self, schedule: Schedule, everyones: Callable[[str], Sequence[str]]) -> TrainingState:
        """Restore the newest checkpoint, if there is one; returns the state to continue from.

        All workers call it together.

        Args:
            schedule: of this training.
            everyones: a line → that of every worker.

        Raises:
            StoreUnavailable: the workers see different checkpoints.
        """

        def fits(checkpoint: Checkpoint) -> bool:
            return is_possible(checkpoint.state, schedule) and self._network.fits(checkpoint)

        loaded = agreed(lambda: load_checkpoint(self._run, self._folder, fits), everyones)
        if loaded is None:
            return TrainingState()
        checkpoint = loaded.checkpoint
        # A driver that was killed has not recorded the time of its last attempt.
        self._earlier_seconds = max(self._earlier_seconds, checkpoint.state.wall_seconds)
        self._network.restore(checkpoint)
        return checkpoint.state

    def is_due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return time.monotonic() - self._last >= self._every

    def save(self, state: TrainingState) -> None:
        """Write a checkpoint, if this worker writes."""
        self._last = time.monotonic()
        if self._writes:
            state = state.model_copy(update={"wall_seconds": self.wall_seconds()})
            save_checkpoint(self._run, self._folder, self._network.checkpoint(state))

    def delete(self) -> None:
        """Remove all checkpoints of a finished training."""
        delete_checkpoints(self._run, self._folder)
