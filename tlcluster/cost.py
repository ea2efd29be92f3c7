"""How much an experiment computes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tlcluster.backbones import BACKBONES
from tlcluster.experiments import Experiment


class Forward(NamedTuple):
    """A forward pass of a base for one image."""

    flop: float
    """Its floating-point operations."""
    trained: float = 1.0
    """Share of them in blocks that are trained, of a base that is."""
    kept: float = 0.0
    """Share of them that features save, of a base that is trained: those of its frozen part."""


def flop(
    experiment: Experiment,
    forward: Forward,
    rows: Mapping[str, int],
    views: int | None = None,
    features: bool = True,
    seeds: int = 1,
    same_views: bool = False,
) -> float:
    """Floating-point operations of the base in all epochs of an experiment and its test.

    A backward pass takes twice as many as a forward pass. If features are kept, a frozen base, or
    the frozen part of it, sees each image, or each view of it, once, however many seeds there are.

    Args:
        forward: of the base.
        rows: images of each split.
        views: augmented views that a frozen base takes in turn; None for a new one in each epoch.
        features: whether features are kept.
        seeds: with how many the experiment is trained; the operations are those of all.
        same_views: whether all seeds show the same augmented views.
    """
    epochs = experiment.epochs
    trained, kept = (forward.trained, forward.kept) if experiment.base_trainable else (0.0, 1.0)
    if not features:
        kept = 0.0
    shown = min(epochs, views or epochs) if experiment.augment else 1
    if experiment.augment and not same_views:
        shown *= seeds
    again = (1 - kept) * epochs * seeds
    train, valid = kept * shown + again + 2 * trained * epochs * seeds, kept + again
    tested = (kept + (1 - kept) * seeds) * experiment.test_views
    return forward.flop * (train * rows["train"] + valid * rows["valid"] + tested * rows["test"])


def longest_first(
    experiments: Sequence[Experiment], forward: Mapping[str, Forward]
) -> list[Experiment]:
    """The order of admission: the experiment that takes longest starts first.

    Args:
        forward: name → a forward pass of its base, in any unit.
    """
    even = {"train": 1, "valid": 1, "test": 1}

    def time(experiment: Experiment) -> float:
        work = flop(experiment, forward[experiment.name], even)
        return work / BACKBONES[experiment.base].efficiency

    return sorted(experiments, key=time, reverse=True)
