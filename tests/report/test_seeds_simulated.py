"""What intervals and the rule for more seeds promise, on 1,000 simulated comparisons.

`docs/statistics.md` has the figures.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import chi2, norm
from seeds_lab import Lab

from tlcluster.report.seeds.accuracy import accuracy
from tlcluster.report.seeds.contrast import POWER, estimate, smallest
from tlcluster.report.seeds.estimate import Estimate, Spread, student, total
from tlcluster.report.seeds.proportions import SIGNIFICANT, Interval
from tlcluster.report.seeds.replication import prediction
from tlcluster.report.seeds.resolve import looks, resolve

COMPARISONS = 1000
SEVERAL = (3, 5)
MOST = 10

LAB = Lab(
    seeds=MOST,
    images=2000,
    spread=(0.006, 0.006, 0.018, 0.006),
    offset=(3.0, 3.0, 3.0, 3.5),
)
"""Three equal experiments of 75 %, one of them with three times the spread between seeds, and one
that is 3 points better."""
NAMES = "abcd"
EQUAL = {("a", "b"), ("a", "c"), ("b", "c")}


class Simulated(NamedTuple):
    """How often, of `COMPARISONS`."""

    held: Counter[str]
    """What an interval is about → it held that."""
    wrong: int
    """The rule for more seeds took one of the equal experiments for better."""
    wrong_if_unaware: int
    """The same of a and b alone, if each look were made at 5 %."""
    found: int
    """Pairs of unequal experiments that were decided, of three in a comparison."""


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    rng = np.random.default_rng(524)
    expected = dict(zip(NAMES, map(LAB.expected, range(len(NAMES))), strict=True))
    held: Counter[str] = Counter()
    wrong = unaware = found = 0

    def check(what: str, interval: Interval, truth: float) -> None:
        held[what] += interval.low <= truth <= interval.high

    for _ in range(COMPARISONS):
        trained = dict(zip(NAMES, LAB.trained(rng), strict=True))
        for seeds in SEVERAL:
            few = {name: table[:seeds] for name, table in trained.items()}
            after = f"with {seeds} seeds"
            check(f"accuracy {after}", accuracy(few["a"]).interval, expected["a"])
            for b in "bcd":
                interval = estimate(few["a"], few[b]).interval()
                check(f"a less {b} {after}", interval, expected["a"] - expected[b])
            interval = estimate(few["a"], few["b"], same_seeds=True).interval()
            check(f"a less b by seed {after}", interval, 0)
            for images in (LAB.images, 90_000):
                interval = prediction(few["a"], images)
                new = LAB.published(rng, NAMES.index("a"), images)
                check(f"a new training on {images} images {after}", interval, new)
        pairs = resolve(trained, first=3, most=MOST).pairs
        decided = {(pair.a, pair.b) for pair in pairs if pair.better}
        wrong += bool(decided & EQUAL)
        found += len(decided - EQUAL)
        unaware += any(
            estimate(trained["a"][:seeds], trained["b"][:seeds]).p_value() < SIGNIFICANT
            for seeds in looks(3, MOST)
        )
    return Simulated(held, wrong, unaware, found)


def test_95_percent_intervals_hold_what_they_are_about_in_93_to_97_percent(
    simulated: Simulated,
) -> None:
    print(simulated)  # the figures of docs/statistics.md
    for what, times in simulated.held.items():
        assert 0.93 <= times / COMPARISONS <= 0.97, what


def test_the_rule_for_more_seeds_decides_wrongly_in_5_percent_at_most(simulated: Simulated) -> None:
    assert simulated.wrong / COMPARISONS <= 0.05


def test_the_simulation_notices_a_rule_that_forgets_how_often_it_looked(
    simulated: Simulated,
) -> None:
    assert simulated.wrong_if_unaware / COMPARISONS > 0.05


def test_the_rule_for_more_seeds_finds_most_differences_of_three_points(
    simulated: Simulated,
) -> None:
    assert simulated.found / (3 * COMPARISONS) > 0.5


# --- the same without images: variances as of normal numbers, coverage without chance -----------

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.95, 1.0)
STEPS = (np.arange(60) + 0.5) / 60


def estimated(seeds: int, share: float, ratio: float | None) -> Iterator[Estimate]:
    """Estimates of a number whose variance is 1, of which the seeds have a share; equally likely.

    Args:
        seeds: of each experiment.
        share: of the seeds in the variance.
        ratio: of the seeds' variance in two experiments; None for one experiment.
    """
    df = seeds - 1
    images = Spread(1 - share, 1999)
    factors: npt.NDArray[np.float64] = chi2.ppf(STEPS, df) / df
    for first in factors:
        if ratio is None:
            yield Estimate(0.0, Spread(share * first, df), images)
            continue
        for second in factors:
            a = Spread(share * first * ratio / (1 + ratio), df)
            b = Spread(share * second / (1 + ratio), df)
            yield Estimate(0.0, total(a, b), images)


@pytest.mark.parametrize("ratio", [None, 1.0, 9.0])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_whatever_the_seeds_share_in_the_variance_intervals_cover_94_to_97_percent(
    seeds: int, ratio: float | None
) -> None:
    for share in SHARES:
        margins = np.array([one.margin() for one in estimated(seeds, share, ratio)])
        assert 0.94 <= 1 - 2 * norm.sf(margins).mean() <= 0.97


def test_with_two_seeds_the_interval_of_an_accuracy_covers_90_percent_at_least() -> None:
    for share in SHARES:
        margins = np.array([one.margin() for one in estimated(2, share, None)])
        assert 1 - 2 * norm.sf(margins).mean() >= 0.9


@pytest.mark.parametrize("share", SHARES)
def test_the_smallest_difference_is_found_with_about_the_power_that_it_is_for(share: float) -> None:
    seeds = 5
    known = total(*[Spread(share / 2, seeds - 1)] * 2)
    of = Estimate(0.0, known, Spread(1 - share, 1999))
    difference = smallest(Spread(of.variance, of.df))
    margins = np.array([one.margin() for one in estimated(seeds, share, 1.0)])
    assert norm.sf(margins - difference).mean() == pytest.approx(POWER, abs=0.05)


def test_quantiles_are_students() -> None:
    # Student's table: 4.303, 2.776 and 1.960.
    assert [student(0.975, df) for df in (2, 4, 1e9)] == pytest.approx(
        [4.3027, 2.7764, 1.9600], 1e-4
    )
