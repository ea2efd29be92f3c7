"""What features have cost the workers that computed them, so that a report can share it out."""

from collections.abc import Callable, Mapping

import tensorflow as tf

from tlcluster.training.collective import total


class FeatureTimes:
    """Seconds in which the workers of a training have computed features, part by part."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        workers: int,
        computed: Callable[[], Mapping[str, float | None]],
    ) -> None:
        """
        Args:
            strategy: adds up what the workers took.
            workers: how many there are.
            computed: what this worker took so far; see `tlcluster.training.inputs.Inputs`.
        """
        self._strategy, self._workers, self._computed = strategy, workers, computed
        self._taken: Mapping[str, float] = {}

    def since(self) -> dict[str, float] | None:
        """Group → seconds since it was asked before, all workers together; None without features.

        It has the groups that this worker reads, and those that others computed. All workers call
        it together.
        """
        computed = self._computed()
        if not computed:
            return None
        seconds = {group: so_far or 0.0 for group, so_far in computed.items()}
        new = [so_far - self._taken.get(group, 0.0) for group, so_far in seconds.items()]
        self._taken = seconds
        if self._workers > 1:
            new = total(self._strategy, tf.constant(new, tf.float64)).numpy().tolist()
        return {
            group: spent
            for (group, so_far), spent in zip(computed.items(), new, strict=True)
            if so_far is not None or spent
        }
