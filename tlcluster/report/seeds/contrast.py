"""Two experiments on the same test images: which is better, by how much, and how sure that is."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from tlcluster.report.seeds.estimate import Estimate, Spread, student, total
from tlcluster.report.seeds.holm import holm
from tlcluster.report.seeds.moments import Covers, Moments, Right, difference, mean, moments
from tlcluster.report.seeds.proportions import (
    SIGNIFICANT,
    Interval,
    mcnemar,
    paired_difference,
)

POWER = 0.8
"""The probability with which the smallest difference that a run can show would be shown."""


class Contrast(NamedTuple):
    """Two experiments on the same test images."""

    a: str
    b: str
    difference: float
    """Accuracy of `a` less accuracy of `b`."""
    interval: Interval
    """Of the difference."""
    covers: Covers
    """The sources of error in `interval` and `p_value`."""
    test: Literal["exact", "chi-square", "t"]
    p_value: float
    p_holm: float
    """`p_value` adjusted for all the comparisons that were made together."""
    effect: float
    """Cohen's h, see `cohens_h`."""
    probability: float | None
    """That a new training of `a` is better than a new one of `b`; None if either has one seed."""
    smallest: float
    """The smallest difference that would have been found with probability `POWER`."""
    smallest_with_any_seeds: float | None
    """The same if there were many seeds and no more test images; None if either has one seed."""


def contrasts(
    experiments: Mapping[str, Right], *, same_seeds: bool = False
) -> tuple[Contrast, ...]:
    """Every two experiments, in their order.

    With one seed each: Newcombe's interval and McNemar's test. With several of
    both: Student's t, over images and seeds. With one of either: Student's t,
    over images alone.

    Args:
        experiments: their (seeds, images), the same images in the same order.
        same_seeds: row s of every experiment is the same seed, and what a seed
            does to one experiment it does to the other. The difference is then
            taken seed by seed, which halves the degrees of freedom. Otherwise
            seeds count as independent: if lucky seeds are lucky for both,
            intervals are wider than they must be. Choose before looking.

    Raises:
        ValueError: the shapes do not fit.
    """
    return paired(list(itertools.combinations(experiments.items(), 2)), same_seeds=same_seeds)


def paired(
    pairs: Sequence[tuple[tuple[str, Right], tuple[str, Right]]], *, same_seeds: bool = False
) -> tuple[Contrast, ...]:
    """These pairs alone, adjusted for as many comparisons; see `contrasts`.

    Args:
        pairs: of names with their (seeds, images); the two of a pair have the same images in the
            same order.
        same_seeds: as there.
    """
    alone = [
        _contrast(a, b, left, right, same_seeds=same_seeds, comparisons=len(pairs))
        for (a, left), (b, right) in pairs
    ]
    adjusted = holm([one.p_value for one in alone])
    return tuple(one._replace(p_holm=p) for one, p in zip(alone, adjusted, strict=True))


def _contrast(
    a: str, b: str, left: Right, right: Right, *, same_seeds: bool, comparisons: int
) -> Contrast:
    found = estimate(left, right, same_seeds=same_seeds)
    several = min(len(left), len(right)) > 1
    test: Literal["exact", "chi-square", "t"]
    if len(left) == len(right) == 1:
        only_a, only_b = int((left & ~right).sum()), int((right & ~left).sum())
        both = int((left & right).sum())
        interval = paired_difference(both, only_a, only_b, left.size - both - only_a - only_b)
        test, p_value = mcnemar(only_a, only_b)
    else:
        low, high = found.interval()
        interval = Interval(max(low, -1.0), min(high, 1.0))
        test, p_value = "t", found.p_value()
    return Contrast(
        a=a,
        b=b,
        difference=found.value,
        interval=interval,
        covers="images and seeds" if several else "images",
        test=test,
        p_value=p_value,
        p_holm=p_value,
        effect=cohens_h(float(left.mean()), float(right.mean())),
        probability=better(left, right, same_seeds=same_seeds) if several else None,
        smallest=smallest(Spread(found.variance, found.df), comparisons),
        smallest_with_any_seeds=smallest(found.images, comparisons) if several else None,
    )


def estimate(a: Right, b: Right, *, same_seeds: bool = False) -> Estimate:
    """The accuracy of `a` less that of `b`; see `contrasts`."""
    return mean(_by_seed(a, b)) if same_seeds else difference(moments(a), moments(b))


def better(a: Right, b: Right, *, same_seeds: bool = False) -> float:
    """The probability that a new training of `a` is more accurate than a new one of `b`.

    On all images that the test images are a sample of. The new seeds differ
    from ours by a normal distribution with the spread of ours, and the error of
    our means is added (a predictive distribution; without that error it is the
    common language effect size of K. O. McGraw and S. P. Wong, Psychological
    Bulletin 111 (1992) 361–365).

    Args:
        a, b: (seeds, images), two seeds at least.
        same_seeds: see `contrasts`.
    """
    ours = estimate(a, b, same_seeds=same_seeds)
    tables = [_by_seed(a, b)] if same_seeds else [moments(a), moments(b)]
    new = ours._replace(seeds=total(*(one.one_seed for one in tables)))
    return new.tail(-ours.value)


def _by_seed(a: Right, b: Right) -> Moments:
    if a.shape != b.shape:
        raise ValueError(f"{a.shape} and {b.shape} do not have the same seeds and images")
    return moments(np.subtract(a, b, dtype=np.int8))


def cohens_h(a: float, b: float) -> float:
    """The effect size h of two proportions: the difference of their 2·arcsin√p.

    0.2 is small, 0.5 medium, 0.8 large. Unlike an odds ratio it is finite where
    one of them is 0 or 1; unlike a difference it counts a point near 100 % for
    more than one near 50 %; and it depends on neither the number of images nor
    on how the two agree.

    J. Cohen, "Statistical Power Analysis for the Behavioral Sciences", 2nd
    edition, 1988, chapter 6.
    """
    return 2 * math.asin(math.sqrt(a)) - 2 * math.asin(math.sqrt(b))


def smallest(error: Spread, comparisons: int = 1) -> float:
    """The smallest difference that is found with probability `POWER` at Holm's first step.

    H. S. Bloom, "Minimum detectable effects: a simple way to report the
    statistical power of experimental designs", Evaluation Review 19 (1995)
    547–556.

    Args:
        error: of the difference.
        comparisons: how many are made together.
    """
    level = SIGNIFICANT / max(comparisons, 1)
    quantiles = student(1 - level / 2, error.df) + student(POWER, error.df)
    return quantiles * math.sqrt(error.variance)
