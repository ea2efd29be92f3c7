"""How much an experiment computes."""

from collections.abc import Mapping, Sequence

from tlcluster.experiments import Experiment

FORWARD_FLOP = 0.627e9
"""Floating-point operations of VGG16's base on one image of 32×32, forward."""


def flop(
    experiment: Experiment, rows: Mapping[str, int], views: int | None = None, features: bool = True
) -> float:
    """Floating-point operations of the base in all epochs of an experiment and its test.

    A backward pass takes twice a forward one. Where features are kept, a frozen base sees an
    image, or a view of it, once.

    Args:
        rows: images of each split.
        views: augmented views that a frozen base takes in turn; None for a fresh one an epoch.
        features: whether features of a frozen base are kept.
    """
    epochs = experiment.epochs
    if experiment.base_trainable:
        train, valid = 3 * epochs, epochs
    elif not features:
        train, valid = epochs, epochs
    else:
        train, valid = (min(epochs, views or epochs) if experiment.augment else 1), 1
    return FORWARD_FLOP * (train * rows["train"] + valid * rows["valid"] + rows["test"])


def longest_first(experiments: Sequence[Experiment]) -> list[Experiment]:
    """The order of admission: what takes longest starts first."""
    even = {"train": 1, "valid": 1, "test": 1}
    return sorted(experiments, key=lambda experiment: -flop(experiment, even))
