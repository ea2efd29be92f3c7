"""What the page shows of the classes. Of many it shows the extremes; files hold the rest."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tlcluster.report.metrics import Metrics

MANY_CLASSES = 25
"""The page and the figures show up to this many one by one. A matrix of 25 × 25 numbers can just
be read at the width of the page."""

EXTREMES = 12
"""Of many classes, how many of the worst and how many of the best the page lists."""

CONFUSIONS = 20
"""Of many classes, how many confusions the page lists."""


def listed_classes(tested: Sequence[Metrics]) -> list[int]:
    """Positions of the classes in the page's table: all in order; of many, the ones with the
    lowest and the highest F1, the lowest first. F1 is averaged over the experiments."""
    classes = len(tested[0].per_class)
    if classes <= MANY_CLASSES:
        return list(range(classes))
    f1 = np.mean([[one.f1 for one in metrics.per_class] for metrics in tested], axis=0)
    order = [int(position) for position in np.argsort(f1, kind="stable")]
    return order[:EXTREMES] + order[-EXTREMES:]


class Confused(NamedTuple):
    """A class that was taken for another one."""

    true: int
    predicted: int
    """Positions in the classes."""
    counts: tuple[int, ...]
    """Test images, one count for each experiment."""
    images: int
    """Test images of the true class."""


def most_confused(tested: Sequence[Metrics]) -> list[Confused]:
    """The most frequent confusions of all experiments together, the most frequent first."""
    matrices = np.array([metrics.confusion for metrics in tested])
    together = matrices.sum(axis=0)
    np.fill_diagonal(together, 0)
    order = np.argsort(-together, axis=None, kind="stable")[:CONFUSIONS]
    return [
        Confused(
            int(true),
            int(predicted),
            tuple(int(count) for count in matrices[:, true, predicted]),
            tested[0].per_class[true].support,
        )
        for true, predicted in zip(*np.unravel_index(order, together.shape), strict=True)
        if together[true, predicted]
    ]
