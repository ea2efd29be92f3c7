"""Which fresh views every training has passed, so that their features can be deleted.

A fresh view is shown once. At full size its features take 180 MB, or several GB if they are of the
lower part of a base, and there is one in every epoch.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tlcluster.orchestration.replicates import Replicate
from tlcluster.orchestration.state import State
from tlcluster.training.feature_key import FeatureKey


class View(NamedTuple):
    """One augmented view of the train split."""

    key: FeatureKey
    number: int


@dataclass(frozen=True)
class PassedViews:
    """The replicates that share fresh views, and how far they are."""

    users: Mapping[FeatureKey, tuple[str, ...]]
    """The keys of the replicates that use the views under a key of features."""
    first: Mapping[FeatureKey, int] = field(default_factory=dict)
    """The first view that is still there; 1 if it is not known."""

    def passed(self, state: State) -> "tuple[tuple[View, ...], PassedViews]":
        """The views that nobody needs any more, and what is left once they are deleted."""
        views: list[View] = []
        first = dict(self.first)
        for key, names in self.users.items():
            reached = min(_reached(state, name) for name in names)
            begin = first.get(key, 1)
            views += [View(key, number) for number in range(begin, reached)]
            first[key] = max(begin, reached)
        return tuple(views), replace(self, first=first)


def sharing(
    replicates: Iterable[Replicate], key: Callable[[Replicate], FeatureKey]
) -> Mapping[FeatureKey, tuple[str, ...]]:
    """Key of features → keys of the replicates that take fresh views from there."""
    users: dict[FeatureKey, tuple[str, ...]] = {}
    for one in replicates:
        # Features of a lower part may be too large to be kept. Deleting them does nothing then.
        if one.experiment.augment and one.experiment.feature_end:
            users[key(one)] = (*users.get(key(one), ()), one.key)
    return users


def _reached(state: State, name: str) -> int:
    """The epoch that a replicate is in; one past the last if it needs no view any more."""
    one = state[name]
    if not one.open:
        return one.epochs + 1
    return one.progress.epoch if one.progress else 1
