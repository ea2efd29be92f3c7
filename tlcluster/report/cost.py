"""What trainings cost: the time of their workers and GPUs, with shared features shared out.

A shard of features is computed once, by the first worker that needs it, and read by all trainings
with the same base and data. What it took is taken from the training that computed it and divided
in equal parts among the trainings of the run that read its group; see `FeatureKey.group`. So the
costs of a run's trainings add up to the time of its workers. Features that an earlier run left cost
nothing here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tlcluster.money import money
from tlcluster.records import EpochRecord, ExperimentResult, PriceRecord
from tlcluster.report.shares import Shares, added, shares


class Cost(NamedTuple):
    """What one training cost, or several together. Times are those of all workers together."""

    worker_seconds: float
    """With its part of the features that it read, without those that it computed for others."""
    gpu_seconds: float | None
    """The same times the GPUs that a worker reserved; None if these are not known."""
    feature_seconds: float
    """Of `worker_seconds`: its part of features."""
    computed_seconds: float
    """Time in which its own workers computed features, for itself and for others."""
    money: float | None = None
    """None without a price."""
    shares: Shares | None = None
    """Where the time went; None in runs of version 0.1.0."""


class Spent(NamedTuple):
    """What the workers of one training did, before anything is shared out."""

    worker_seconds: float
    gpu_seconds: float | None
    features: Mapping[str, float]
    """Group of features that it read → seconds in which its workers computed some of them."""
    shares: Shares | None = None


def spent(result: ExperimentResult, epochs: Sequence[EpochRecord]) -> Spent | None:
    """What a training's records say; None if they do not say how long it had how many workers.

    Of a training that has not ended, or whose driver was killed, it is the time of its epochs, or
    that of earlier attempts if it is longer.
    """
    seconds, gpus = result.reserved_seconds, result.gpu_seconds
    if result.status == "running":
        trained = sum(one.seconds * one.workers for one in epochs)
        if trained > (seconds or 0.0):
            gpus = gpus * trained / seconds if gpus and seconds else None
            seconds = trained
    if seconds is None:
        return None
    features: dict[str, float] = {}
    for record in (*epochs, result):
        for group, taken in (record.feature_seconds or {}).items():
            features[group] = features.get(group, 0.0) + taken
    # The time of an attempt is lost with its driver; that of its features is not.
    known = min(1.0, seconds / total) if (total := sum(features.values())) else 1.0
    shared = {group: known * one for group, one in features.items()}
    return Spent(seconds, gpus if seconds else 0.0, shared, shares(result, epochs))


def shared_out(
    every: Sequence[Spent | None], price: PriceRecord | None = None
) -> list[Cost | None]:
    """What each training of a run cost; None for one of which too little is known."""
    known = [one for one in every if one is not None]
    groups = {group for one in known for group in one.features}
    # Part of each training that read a group: (worker-seconds, GPU-seconds).
    parts = {}
    for group in sorted(groups):
        readers = [one for one in known if group in one.features]
        seconds = [one.features[group] for one in readers]
        gpus = [_gpus(one) * taken for one, taken in zip(readers, seconds, strict=True)]
        parts[group] = sum(seconds) / len(readers), sum(gpus) / len(readers)
    return [None if one is None else _cost(one, parts, price) for one in every]


def _gpus(one: Spent) -> float:
    """GPUs of a worker; 0 if they are not known."""
    return (one.gpu_seconds or 0.0) / one.worker_seconds if one.worker_seconds else 0.0


def _cost(one: Spent, parts: Mapping[str, tuple[float, float]], price: PriceRecord | None) -> Cost:
    computed = sum(one.features.values())
    taken = sum(parts[group][0] for group in one.features)
    on_gpus = sum(parts[group][1] for group in one.features)
    own = max(0.0, one.worker_seconds - computed)
    seconds = own + taken
    gpus = None if one.gpu_seconds is None else own * _gpus(one) + on_gpus
    return Cost(seconds, gpus, taken, computed, price and money(price, seconds, gpus), one.shares)


def together(costs: Iterable[Cost | None]) -> Cost | None:
    """What several trainings cost; None if one of them is not known."""
    known = list(costs)
    found = [one for one in known if one is not None]
    if len(found) < len(known):
        return None
    known_shares = [one.shares for one in found if one.shares is not None]
    return Cost(
        sum(one.worker_seconds for one in found),
        _sum(one.gpu_seconds for one in found),
        sum(one.feature_seconds for one in found),
        sum(one.computed_seconds for one in found),
        _sum(one.money for one in found),
        added(known_shares) if len(known_shares) == len(found) else None,
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """None if one of them is."""
    every = list(values)
    known = [one for one in every if one is not None]
    return sum(known) if len(known) == len(every) else None


def hours(seconds: float | None) -> float | None:
    """Seconds as hours."""
    return None if seconds is None else seconds / 3600
