"""Replicates: an experiment with one of the run's seeds, which is trained by itself."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from tlcluster.experiments import Experiment
from tlcluster.records import replicate_folder


class Replicate(NamedTuple):
    """One experiment with one seed."""

    experiment: Experiment
    seed: int
    key: str
    """Its folder in the run, by which the driver names it everywhere. With the run's first seed,
    this is the experiment's name."""
    title: str


def replicates(
    experiments: Sequence[Experiment],
    seeds: Sequence[int],
    only: int | None = None,
    counts: Mapping[str, int] = MappingProxyType({}),
) -> tuple[Replicate, ...]:
    """All replicates of a run, or those of one seed, in the order of the report.

    Args:
        experiments: in the order of the report.
        seeds: all seeds of the run, its first one first.
        only: the one seed to take; None takes all.
        counts: experiment → how many of the seeds, from the first on; all if it is not there.
    """
    return tuple(
        Replicate(
            one,
            seed,
            replicate_folder(one.name, seed, seeds[0]),
            one.title if len(seeds) == 1 else f"{one.title}, seed {seed}",
        )
        for one in experiments
        for seed in seeds[: counts.get(one.name)]
        if only in (None, seed)
    )


def seed_by_seed(
    found: Sequence[Replicate], experiments: Sequence[Experiment]
) -> tuple[Replicate, ...]:
    """Replicates in the order in which they start.

    Every experiment has its first seed before one has its second, so that a report of one seed each
    comes as soon as it can.

    Args:
        found: the replicates; the seeds of each experiment are in their order.
        experiments: the order within a seed.
    """
    seeds = list(dict.fromkeys(one.seed for one in found))
    place = {one.name: number for number, one in enumerate(experiments)}
    return tuple(sorted(found, key=lambda one: (seeds.index(one.seed), place[one.experiment.name])))


def flat(key: str) -> str:
    """A key as one name without a slash. No experiment's name has a dot."""
    return key.replace("/", ".")
