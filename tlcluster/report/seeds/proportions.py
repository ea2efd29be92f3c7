"""One training on the test images: intervals of proportions, and McNemar's test."""

import math
from typing import Literal, NamedTuple

from scipy.stats import binomtest, chi2

CONFIDENCE = 0.95
SIGNIFICANT = 0.05

FEW_DISCORDANT = 25
"""Below this many discordant pairs McNemar's test is the exact one; the customary bound for the
chi-square approximation."""


class Interval(NamedTuple):
    """A two-sided 95 % confidence interval, unless another confidence is named."""

    low: float
    high: float


def wilson(successes: int, trials: int) -> Interval:
    """Wilson's score interval of a proportion.

    E. B. Wilson, "Probable inference, the law of succession, and statistical
    inference", J. Am. Stat. Assoc. 22 (1927) 209–212.
    """
    low, high = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(low), float(high))


def mcnemar(only_a: int, only_b: int) -> tuple[Literal["exact", "chi-square"], float]:
    """McNemar's test that two classifiers are equally often right: which form of it, and p.

    Only the images count that one classifier got right and the other wrong. If
    there are few, this is the exact two-sided binomial test, else chi-square
    with one degree of freedom and Edwards' continuity correction.

    Q. McNemar, Psychometrika 12 (1947) 153–157; A. L. Edwards, Psychometrika
    13 (1948) 185–187; for classifiers, T. G. Dietterich, Neural Computation 10
    (1998) 1895–1923.
    """
    discordant = only_a + only_b
    if discordant < FEW_DISCORDANT:
        return "exact", float(binomtest(only_a, discordant).pvalue) if discordant else 1.0
    statistic = max(abs(only_a - only_b) - 1, 0) ** 2 / discordant
    return "chi-square", float(chi2.sf(statistic, df=1))


def paired_difference(both: int, only_a: int, only_b: int, neither: int) -> Interval:
    """Newcombe's interval for the difference of two proportions of the same things.

    Method 10 of R. G. Newcombe, "Improved confidence intervals for the
    difference between binomial proportions based on paired data", Statistics
    in Medicine 17 (1998) 2635–2650: Wilson's intervals of the two proportions,
    put together with their correlation. It stays within [−1, 1] and has a
    width where no pair is discordant.
    """
    n = both + only_a + only_b + neither
    a, b = (both + only_a) / n, (both + only_b) / n
    a_low, a_high = wilson(both + only_a, n)
    b_low, b_high = wilson(both + only_b, n)
    phi = _correlation(both, only_a, only_b, neither)
    low, high = a - a_low, b_high - b
    down = low**2 - 2 * phi * low * high + high**2
    low, high = b - b_low, a_high - a
    up = low**2 - 2 * phi * low * high + high**2
    return Interval(a - b - math.sqrt(down), a - b + math.sqrt(up))


def _correlation(both: int, only_a: int, only_b: int, neither: int) -> float:
    """The phi coefficient. A positive numerator is corrected for continuity."""
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if margins == 0:
        return 0.0
    numerator = float(both * neither - only_a * only_b)
    if numerator > 0:
        numerator = max(numerator - (both + only_a + only_b + neither) / 2, 0)
    return numerator / math.sqrt(margins)
