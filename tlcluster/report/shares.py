"""Where the time of trainings went: in steps, waiting for input, in validation, and so on."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tlcluster.records import EpochRecord, ExperimentResult


class Shares(NamedTuple):
    """Seconds of the first worker of a training, or of several trainings together.

    Steps hold the sums of gradients: they are in one call of the graph with the computation, and
    only a profiler could tell them apart.
    """

    steps: float = 0.0
    input: float = 0.0
    """Training steps waited for their batches: for storage, or for features to be computed."""
    collectives: float = 0.0
    """Waiting for the other workers at the end of each validation."""
    validation: float = 0.0
    test: float = 0.0
    idle: float = 0.0
    """All else: start-up, checkpoints, and what an attempt had done that failed."""


def shares(result: ExperimentResult, epochs: Sequence[EpochRecord]) -> Shares | None:
    """Where the time of one training went; None in runs of version 0.1.0."""
    test = result.test_seconds or 0.0
    found = [Shares(test=test)]
    for one in epochs:
        if one.input_seconds is None or one.validation_seconds is None or one.sum_seconds is None:
            return None
        rest = one.seconds - one.input_seconds - one.validation_seconds - one.sum_seconds
        parts = one.input_seconds, one.sum_seconds, one.validation_seconds
        found.append(Shares(max(0.0, rest), *parts))
    if not epochs and result.worker_seconds is None and result.wall_seconds:
        return None
    busy = added(found)
    return busy._replace(idle=max(0.0, result.wall_seconds - sum(busy)))


def added(every: Iterable[Shares]) -> Shares:
    """The sum of several."""
    return Shares(*(sum(values) for values in zip(*every, strict=True)))


def fractions(of: Shares) -> Shares | None:
    """The same as parts of the whole; None if there is no time, or a damaged one."""
    whole = sum(of)
    if not 0 < whole < math.inf or min(of) < 0:
        return None
    return Shares(*(seconds / whole for seconds in of))
