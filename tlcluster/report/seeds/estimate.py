"""An estimate whose error has two sources, and the interval and p-value that follow from it."""

import math
from typing import NamedTuple

from scipy.special import stdtr, stdtrit

from tlcluster.report.seeds.proportions import CONFIDENCE, Interval


class Spread(NamedTuple):
    """A variance, and the degrees of freedom with which it was estimated."""

    variance: float
    df: float


NOTHING = Spread(0.0, math.inf)
"""No variance: what the seeds add to an estimate that leaves them out."""


def total(*parts: Spread) -> Spread:
    """The variance of a sum of independent parts.

    Degrees of freedom as in F. E. Satterthwaite, "An approximate distribution
    of estimates of variance components", Biometrics Bulletin 2 (1946) 110–114,
    and B. L. Welch, Biometrika 34 (1947) 28–35.
    """
    variance = sum(part.variance for part in parts)
    if variance == 0:
        return Spread(0.0, sum(part.df for part in parts))
    # Shares of the variance, because the square of a small variance may be 0.
    shares = [part.variance / variance for part in parts]
    return Spread(variance, 1 / sum(s * s / part.df for s, part in zip(shares, parts, strict=True)))


def student(p: float, df: float) -> float:
    """The quantile of Student's t distribution. `scipy.stats.t` is the same, and slower."""
    return float(stdtrit(df, p))


class Estimate(NamedTuple):
    """A number known from some seeds and some test images.

    Its error has two independent sources: other seeds would have given another
    number, and so would other images. The sources' variances are added, and the
    sum is used as in Student's t-test.
    """

    value: float
    seeds: Spread
    """From the choice of seeds; `NOTHING` if they are left out."""
    images: Spread
    """From the choice of test images."""

    @property
    def variance(self) -> float:
        return self.seeds.variance + self.images.variance

    @property
    def df(self) -> float:
        """Degrees of freedom of the t distribution: those of the seeds, divided by the seeds'
        share of the variance; at most those of the images.

        The problem is that of readers and cases in radiology. With ν degrees of
        freedom of the seeds and their share w, N. A. Obuchowski and H. E.
        Rockette, Communications in Statistics – Simulation and Computation 24
        (1995) 285–308, take ν, which makes intervals too wide, and S. L. Hillis,
        Statistics in Medicine 26 (2007) 596–619, takes Satterthwaite's ν/w²,
        which makes them too narrow with three seeds, for w is estimated from
        these three as well. This is the geometric mean of the two, ν/w. The
        tests calculate the coverage for every share: 94 to 97 % from three
        seeds on.
        """
        if self.seeds.variance == 0:
            return self.images.df
        return min(self.seeds.df * self.variance / self.seeds.variance, self.images.df)

    def margin(self, confidence: float = CONFIDENCE) -> float:
        """Half the width of the two-sided interval."""
        return student((1 + confidence) / 2, self.df) * math.sqrt(self.variance)

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Student's interval; symmetric, and nothing keeps it inside [0, 1]."""
        margin = self.margin(confidence)
        return Interval(self.value - margin, self.value + margin)

    def p_value(self) -> float:
        """Of the two-sided test that the number is 0."""
        return 2 * self.tail(abs(self.value))

    def tail(self, distance: float) -> float:
        """The probability that the error is larger than a distance, which may be negative."""
        return float(stdtr(self.df, -distance / math.sqrt(self.variance)))
