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
    joules: float | None = None
    """None in runs of version 0.1.0, and if a GPU did not count its energy."""
    energy_source: str = ""
    """Where `joules` comes from, in words."""


class Spent(NamedTuple):
    """What the workers of one training did, before anything is shared out."""

    worker_seconds: float
    gpu_seconds: float | None
    features: Mapping[str, float]
    """Group of features that it read → seconds in which its workers computed some of them."""
    shares: Shares | None = None
    joules: float | None = None
    energy_source: str = ""


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
    records: list[EpochRecord | ExperimentResult] = [*epochs, result]
    for record in records:
        for group, taken in (record.feature_seconds or {}).items():
            features[group] = features.get(group, 0.0) + taken
    # The time of an attempt is lost with its driver; that of its features is not.
    known = min(1.0, seconds / total) if (total := sum(features.values())) else 1.0
    shared = {group: known * one for group, one in features.items()}
    joules, source = _energy(result, epochs)
    if not seconds:
        gpus = joules = 0.0
    return Spent(seconds, gpus, shared, shares(result, epochs), joules, source)


def _energy(result: ExperimentResult, epochs: Sequence[EpochRecord]) -> tuple[float | None, str]:
    """Joules and their source. What a failed attempt used after its last epoch is in no record."""
    records: list[EpochRecord | ExperimentResult] = [*epochs]
    if result.status == "finished":
        records.append(result)
    known = [one.joules for one in records if one.joules is not None]
    if not records or len(known) < len(records):
        return None, ""
    return sum(known), _sources(one.energy_source for one in records)


def _sources(every: Iterable[str]) -> str:
    """`RAPL`, or `RAPL; an estimate` if a training went on elsewhere."""
    return "; ".join(sorted({one for one in every if one}))


def shared_out(
    every: Sequence[Spent | None], price: PriceRecord | None = None
) -> list[Cost | None]:
    """What each training of a run cost; None for one of which too little is known."""
    known = [one for one in every if one is not None]
    groups = {group for one in known for group in one.features}
    parts = {}
    for group in sorted(groups):
        readers = [one for one in known if group in one.features]
        computed = [_of_time(one, one.features[group]) for one in readers]
        parts[group] = _Part(
            *(sum(values) / len(readers) for values in zip(*computed, strict=True))
        )
    return [None if one is None else _cost(one, parts, price) for one in every]


class _Part(NamedTuple):
    """What some time of workers costs."""

    worker_seconds: float
    gpu_seconds: float
    joules: float


def _of_time(one: Spent, seconds: float) -> _Part:
    """What so much time of its workers costs; what is not known counts as 0."""
    share = seconds / one.worker_seconds if one.worker_seconds else 0.0
    return _Part(seconds, share * (one.gpu_seconds or 0.0), share * (one.joules or 0.0))


def _cost(one: Spent, parts: Mapping[str, _Part], price: PriceRecord | None) -> Cost:
    computed = sum(one.features.values())
    own = _of_time(one, max(0.0, one.worker_seconds - computed))
    read = [parts[group] for group in one.features]
    seconds, gpus, joules = (sum(values) for values in zip(own, *read, strict=True))
    known_gpus = None if one.gpu_seconds is None else gpus
    return Cost(
        worker_seconds=seconds,
        gpu_seconds=known_gpus,
        feature_seconds=sum(part.worker_seconds for part in read),
        computed_seconds=computed,
        money=money(price, seconds, known_gpus) if price else None,
        shares=one.shares,
        joules=None if one.joules is None else joules,
        energy_source=one.energy_source,
    )


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
        _sum(one.joules for one in found),
        _sources(source for one in found for source in one.energy_source.split("; ")),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """None if one of them is."""
    every = list(values)
    known = [one for one in every if one is not None]
    return sum(known) if len(known) == len(every) else None


def hours(seconds: float | None) -> float | None:
    """Seconds as hours."""
    return None if seconds is None else seconds / 3600


def kilowatt_hours(joules: float | None) -> float | None:
    """Joules as kilowatt-hours."""
    return None if joules is None else joules / 3.6e6
