"""How much an experiment computes."""

from collections.abc import Mapping, Sequence

from tlcluster.backbones import BACKBONES
from tlcluster.experiments import Experiment


def flop(
    experiment: Experiment,
    forward: float,
    rows: Mapping[str, int],
    views: int | None = None,
    features: bool = True,
    trained: float = 1.0,
) -> float:
    """Floating-point operations of the base in all epochs of an experiment and its test.

    A backward pass takes twice as many as a forward pass. If features are kept, a frozen base sees
    each image, or each view of it, once.

    Args:
        forward: operations of a forward pass of the base for one image.
        rows: images of each split.
        views: augmented views that a frozen base takes in turn; None for a new one in each epoch.
        features: whether features of a frozen base are kept.
        trained: share of the forward pass in blocks that are trained, of a base that is.
    """
    epochs = experiment.epochs
    if experiment.base_trainable:
        train, valid = (1 + 2 * trained) * epochs, float(epochs)
    elif not features:
        train, valid = epochs, epochs
    else:
        train, valid = (min(epochs, views or epochs) if experiment.augment else 1), 1
    tested = experiment.test_views * rows["test"]
    return forward * (train * rows["train"] + valid * rows["valid"] + tested)


def longest_first(
    experiments: Sequence[Experiment], forward: Mapping[str, float]
) -> list[Experiment]:
    """The order of admission: the experiment that takes longest starts first.

    Args:
        forward: name → operations of a forward pass of its base for one image, in any unit.
    """
    even = {"train": 1, "valid": 1, "test": 1}

    def time(experiment: Experiment) -> float:
        work = flop(experiment, forward[experiment.name], even)
        return work / BACKBONES[experiment.base].efficiency

    return sorted(experiments, key=time, reverse=True)
