"""One training on the test images: against worked examples, and what must hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcluster.report.seeds.holm import holm
from tlcluster.report.seeds.proportions import mcnemar, paired_difference, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Table I, method 3, of R. G. Newcombe, "Two-sided confidence intervals for the single
    # proportion", Statistics in Medicine 17 (1998) 857-872.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_is_the_published_one(
    successes: int, trials: int, low: float, high: float
) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998) 2635-2650, method 10.
        ((36, 12, 2, 0), 0.0569, 0.3404),
        # Bentur et al. 2009 in M. W. Fagerland, S. Lydersen and P. Laake, "Recommended tests and
        # confidence intervals for paired binomial proportions", Stat. in Medicine 33 (2014).
        ((1, 1, 7, 12), -0.5069, -0.0256),
    ],
)
def test_newcombes_interval_is_the_published_one(
    table: tuple[int, int, int, int], low: float, high: float
) -> None:
    assert paired_difference(*table) == pytest.approx((low, high), abs=5e-5)


COUNTS = st.integers(0, 400)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_newcombes_interval_holds_the_difference_and_turns_round_with_it(
    both: int, only_a: int, only_b: int, neither: int
) -> None:
    images = both + only_a + only_b + neither
    if images == 0:
        return
    low, high = paired_difference(both, only_a, only_b, neither)
    assert -1 <= low <= (only_a - only_b) / images <= high <= 1
    assert paired_difference(both, only_b, only_a, neither) == pytest.approx((-high, -low))


def test_many_discordant_pairs_get_the_corrected_chi_square() -> None:
    # A. Agresti, "Categorical Data Analysis", 1990, table 10.1: 150 and 86 changed their mind.
    # (|150 - 86| - 1)^2 / 236 = 16.818, of which R's mcnemar.test says p = 4.115e-05.
    test, p_value = mcnemar(150, 86)
    assert test == "chi-square"
    assert p_value == pytest.approx(4.115e-05, rel=1e-3)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [
        (1, 7, 2 * (1 + 8) / 2**8),  # Bentur et al. 2009, exact conditional test: 0.0703
        (0, 5, 2 / 2**5),
        (3, 3, 1.0),
        (0, 0, 1.0),
    ],
)
def test_few_discordant_pairs_get_the_exact_binomial_test(
    only_a: int, only_b: int, p_value: float
) -> None:
    assert mcnemar(only_a, only_b) == ("exact", pytest.approx(p_value))


def test_the_exact_test_is_for_less_than_25_discordant_pairs() -> None:
    assert mcnemar(12, 12)[0] == "exact"
    assert mcnemar(13, 12) == ("chi-square", 1.0)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemars_test_does_not_care_which_of_the_two_comes_first(a: int, b: int) -> None:
    assert mcnemar(a, b) == (mcnemar(b, a)[0], pytest.approx(mcnemar(b, a)[1]))


def test_holms_p_values_are_those_of_a_worked_example() -> None:
    # As R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm").
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holms_p_values_are_no_smaller_keep_their_order_and_stay_probabilities(
    p_values: list[float],
) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    ranked = [adjusted[place] for place in np.argsort(p_values, kind="stable")]
    assert ranked == sorted(ranked)
