"""The accuracy of one experiment: mean, spread between seeds, and an interval."""

import math
from typing import NamedTuple

from tlcluster.report.seeds.estimate import Estimate, student
from tlcluster.report.seeds.moments import Covers, Right, mean, moments
from tlcluster.report.seeds.proportions import CONFIDENCE, Interval, wilson


class Accuracy(NamedTuple):
    """The accuracy of an experiment that was trained once or several times."""

    mean: float
    seeds: tuple[float, ...]
    """The accuracy of each."""
    spread: float | None
    """Standard deviation between seeds, on these test images; None with one seed."""
    interval: Interval
    """Of the expected accuracy, on all images that the test images are a sample of."""
    covers: Covers
    """What would have to be drawn again for the mean to leave the interval by chance."""


def accuracy(right: Right) -> Accuracy:
    """The accuracy of one experiment from (seeds, images), one each at least.

    With one seed the interval is Wilson's and covers the images alone. With
    several it is Wilson's for the number of images that would be as uncertain,
    with a quantile of Student's t: so it stays inside [0, 1]. With two it may
    cover 90 % only (`docs/statistics.md`). As for clustered
    samples in E. L. Korn and B. I. Graubard, "Confidence intervals for
    proportions with small expected number of positive counts estimated from
    survey data", Survey Methodology 24 (1998) 193–201, and N. Dean and M.
    Pagano, Journal of Survey Statistics and Methodology 3 (2015) 484–503.
    """
    of = moments(right)
    several = of.seeds > 1
    return Accuracy(
        mean=of.value,
        seeds=tuple(float(one) for one in of.of_seeds),
        spread=math.sqrt(of.between) if several else None,
        interval=(
            _inside(mean(of), *right.shape) if several else wilson(int(right.sum()), right.size)
        ),
        covers="images and seeds" if several else "images",
    )


def _inside(estimate: Estimate, seeds: int, images: int) -> Interval:
    p = estimate.value
    # All right or all wrong: no variance is seen, and only different images are evidence.
    n = min(p * (1 - p) / estimate.variance, seeds * images) if 0 < p < 1 else images
    k = student((1 + CONFIDENCE) / 2, estimate.df)
    middle = (p + k * k / (2 * n)) / (1 + k * k / n)
    margin = k * math.sqrt(p * (1 - p) / n + k * k / (4 * n * n)) / (1 + k * k / n)
    return Interval(max(middle - margin, 0.0), min(middle + margin, 1.0))
