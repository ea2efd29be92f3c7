"""What the workers of a training use, from one record to the next."""

from collections.abc import Callable, Mapping

import tensorflow as tf

from tlcluster.training.collective import total
from tlcluster.training.diary import NO_DIARY, Diary
from tlcluster.training.energy import Meter
from tlcluster.training.state import Used


class Ledger:
    """Adds up what all workers of a training use. Each worker has one."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        workers: int,
        computed: Callable[[], Mapping[str, float | None]],
        meter: Meter,
        diary: Diary = NO_DIARY,
    ) -> None:
        """
        Args:
            strategy: adds up what the workers used.
            workers: how many there are.
            computed: for how long this worker has computed features so far; see
                `tlcluster.training.inputs.Inputs`.
            meter: of its energy.
            diary: of this worker.
        """
        self._strategy, self._workers = strategy, workers
        self._computed, self._meter, self._diary = computed, meter, diary
        self._noted: list[float] = []

    def look(self) -> None:
        """To be called often; see `Meter.look`."""
        self._meter.look()

    def since(self) -> Used:
        """What was used since it was asked before. All workers call it together."""
        computed = self._computed()
        so_far = [*(seconds or 0.0 for seconds in computed.values()), self._meter.joules()]
        noted, self._noted = self._noted or [0.0] * len(so_far), so_far
        new = [now - before for now, before in zip(so_far, noted, strict=True)]
        if self._workers > 1:
            with self._diary.together("sum of what the workers used"):
                new = total(self._strategy, tf.constant(new, tf.float64)).numpy().tolist()
        *seconds, joules = new
        # The groups that this worker reads, and those that others computed.
        features = {
            group: spent
            for (group, read), spent in zip(computed.items(), seconds, strict=True)
            if read is not None or spent
        }
        return Used(
            features if computed else None,
            joules if self._meter.known else None,
            self._meter.source if self._meter.known else "",
        )
