"""Which trials a search has yet to train, and which recipe wins: pure functions of records."""

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tlcluster.tuning.records import Planned, TrialRecord
from tlcluster.tuning.space import Value

RECIPE_TRIAL = 0
"""The number of the trial with the profile's own recipe: what the search has to beat."""


class Score(NamedTuple):
    """How a recipe did with several seeds."""

    candidate: int
    mean: float
    """Of the best validation accuracies."""
    spread: float
    """Their standard deviation; 0 of one."""
    accuracies: tuple[float, ...]
    """Of each seed, in the order of their seeds."""


def unfinished(records: Mapping[int, TrialRecord]) -> list[Planned]:
    """The trials that an interrupted search had under way."""
    return [
        Planned(one.number, one.role, one.candidate, one.seed, dict(one.fields))
        for _, one in sorted(records.items())
        if one.status == "running"
    ]


def tried(
    records: Mapping[int, TrialRecord],
) -> list[tuple[Mapping[str, Value], float | None]]:
    """The points of the space that have ended, with their best validation accuracy; None for a
    trial that failed. One that a budget stopped before its first epoch says nothing."""
    return [
        (one.fields, one.best)
        for _, one in sorted(records.items())
        if one.role == "search"
        and (one.status == "failed" or (one.status != "running" and one.best is not None))
    ]


def searched(records: Mapping[int, TrialRecord]) -> int:
    """Trials that count against the number that was asked for."""
    return sum(one.role != "finalist" for one in records.values())


def best_candidates(records: Mapping[int, TrialRecord], count: int) -> list[int]:
    """The trials whose recipes are trained again: the best `count`, and the profile's own."""
    ended = [one for one in records.values() if one.role != "finalist" and one.best is not None]
    best = sorted(ended, key=lambda one: (-(one.best or 0.0), one.number))[:count]
    own = [one for one in ended if one.number == RECIPE_TRIAL]
    return list(dict.fromkeys(one.number for one in (*best, *own)))


def finalists(
    records: Mapping[int, TrialRecord], candidates: Sequence[int], seeds: Sequence[int]
) -> list[Planned]:
    """The trainings of the best recipes with several seeds that are still missing.

    The seeds go round first, so that a search that ends early has as many of each.
    """
    have = {(one.candidate, one.seed) for one in records.values() if one.role == "finalist"}
    wanted = [(one, seed) for seed in seeds for one in candidates if (one, seed) not in have]
    first = max(records, default=-1) + 1
    return [
        Planned(first + place, "finalist", one, seed, dict(records[one].fields))
        for place, (one, seed) in enumerate(wanted)
    ]


def scores(records: Mapping[int, TrialRecord]) -> list[Score]:
    """How the finalists did, the best mean first.

    Only recipes with all the seeds of the one that has most are compared: a mean of few seeds is
    too easily high.
    """
    found: dict[int, list[tuple[int, float]]] = {}
    for one in records.values():
        if one.role == "finalist" and one.best is not None and one.status == "finished":
            found.setdefault(one.candidate, []).append((one.seed, one.best))
    most = max((len(of) for of in found.values()), default=0)
    result = []
    for candidate, of in found.items():
        if len(of) == most:
            accuracies = tuple(accuracy for _, accuracy in sorted(of))
            spread = statistics.stdev(accuracies) if most > 1 else 0.0
            result.append(Score(candidate, statistics.fmean(accuracies), spread, accuracies))
    return sorted(result, key=lambda score: (-score.mean, score.candidate))
