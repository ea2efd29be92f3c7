"""Several seeds of an experiment: variances against mean squares, and what must hold."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcluster.report.seeds.accuracy import accuracy
from tlcluster.report.seeds.contrast import Contrast, better, cohens_h, contrasts, estimate
from tlcluster.report.seeds.estimate import NOTHING, Estimate, Spread, total
from tlcluster.report.seeds.moments import Right, difference, mean, moments
from tlcluster.report.seeds.proportions import mcnemar, paired_difference, wilson
from tlcluster.report.seeds.replication import Replication, prediction, replication
from tlcluster.report.seeds.words import limits, replicated


def trained(seed: int, seeds: int, images: int = 300, p: float = 0.7, easy: float = 0.8) -> Right:
    """(seeds, images); `easy` is the share of images about which all seeds agree."""
    rng = np.random.default_rng(seed)
    agreed = np.random.default_rng(images).random(images)
    own = rng.random((seeds, images))
    return np.where(np.arange(images) < easy * images, agreed, own) < p


SEED = st.integers(0, 2**32 - 1)
SEEDS = st.integers(2, 6)
IMAGES = st.integers(2, 80)


# Where the variance comes from


@given(SEED, SEEDS, IMAGES)
def test_the_images_part_is_the_mean_covariance_of_two_seeds(
    seed: int, seeds: int, images: int
) -> None:
    right = trained(seed, seeds, images)
    covariances = np.cov(right)[~np.eye(seeds, dtype=bool)]
    expected = max(covariances.mean() / images, 1 / images**2)
    # Below 0 without noise to take off: the noise is never negative.
    of = mean(moments(right))
    assert of.images.variance == pytest.approx(expected) or moments(right).noise == 0
    assert of.seeds.variance == pytest.approx(right.mean(axis=1).var(ddof=1) / seeds)
    assert of.value == pytest.approx(right.mean())


@given(SEED, SEEDS, SEEDS, IMAGES)
def test_of_a_difference_what_both_find_hard_is_no_variance(
    seed: int, seeds_a: int, seeds_b: int, images: int
) -> None:
    a, b = trained(seed, seeds_a, images), trained(seed + 1, seeds_b, images, p=0.5)
    if 0 in (moments(a).noise, moments(b).noise):
        return
    covariance = np.cov(a, b)
    of_a = covariance[:seeds_a, :seeds_a][~np.eye(seeds_a, dtype=bool)].mean()
    of_b = covariance[seeds_a:, seeds_a:][~np.eye(seeds_b, dtype=bool)].mean()
    of_both = covariance[:seeds_a, seeds_a:].mean()
    found = difference(moments(a), moments(b))
    expected = max((of_a + of_b - 2 * of_both) / images, 1 / images**2)
    assert found.images.variance == pytest.approx(expected)


def test_the_sum_of_two_equal_spreads_has_the_degrees_of_freedom_of_both() -> None:
    assert total(Spread(2.0, 4), Spread(2.0, 4)) == pytest.approx((4.0, 8.0))
    # Welch 1947: the larger variance counts more.
    assert total(Spread(9.0, 2), Spread(1.0, 2)) == pytest.approx((10.0, 100 / 41))


def test_degrees_of_freedom_lie_between_those_of_seeds_and_images() -> None:
    assert Estimate(0.0, NOTHING, Spread(1.0, 99)).df == 99
    assert Estimate(0.0, Spread(1.0, 2), Spread(0.0, 99)).df == 2
    assert Estimate(0.0, Spread(1.0, 2), Spread(3.0, 99)).df == 8
    assert Estimate(0.0, Spread(1e-9, 2), Spread(1.0, 99)).df == 99


# One experiment


def test_with_one_seed_an_accuracy_has_wilsons_interval_and_covers_images_alone() -> None:
    right = trained(1, 1)
    found = accuracy(right)
    assert found.interval == wilson(int(right.sum()), right.size)
    assert (found.covers, found.spread) == ("images", None)


def test_with_several_seeds_it_has_a_spread_and_covers_both() -> None:
    right = trained(1, 4)
    found = accuracy(right)
    assert found.covers == "images and seeds"
    assert found.seeds == tuple(right.mean(axis=1))
    assert found.spread == pytest.approx(right.mean(axis=1).std(ddof=1))


def test_seeds_that_all_agree_are_no_more_certain_than_one() -> None:
    right = np.repeat(trained(1, 1), 5, axis=0)
    assert accuracy(right).interval == pytest.approx(accuracy(right[:1]).interval, abs=2e-3)


@given(SEED, SEEDS, st.integers(1, 80), st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]))
def test_the_interval_of_an_accuracy_holds_the_mean_stays_in_bounds_and_has_a_width(
    seed: int, seeds: int, images: int, p: float
) -> None:
    right = trained(seed, seeds, images, p)
    found = accuracy(right)
    low, high = found.interval
    assert 0 <= low <= found.mean + 1e-12
    assert found.mean - 1e-12 <= high <= 1
    assert low < high
    order = np.random.default_rng(seed)
    shuffled = right[order.permutation(seeds)][:, order.permutation(images)]
    assert accuracy(shuffled).interval == pytest.approx(found.interval)


# Two experiments


def of_two(a: Right, b: Right, *, same_seeds: bool = False) -> Contrast:
    (found,) = contrasts({"a": a, "b": b}, same_seeds=same_seeds)
    return found


def test_with_one_seed_each_two_experiments_get_newcombes_interval_and_mcnemars_test() -> None:
    a, b = trained(1, 1), trained(2, 1, p=0.6)
    both, only_a, only_b = (int(x.sum()) for x in (a & b, a & ~b, b & ~a))
    found = of_two(a, b)
    assert found.interval == paired_difference(both, only_a, only_b, 300 - both - only_a - only_b)
    assert (found.test, found.p_value) == mcnemar(only_a, only_b)
    assert found.covers == "images"
    assert (found.probability, found.smallest_with_any_seeds) == (None, None)
    assert found.smallest > 0


def test_if_one_of_them_has_one_seed_the_interval_covers_images_alone() -> None:
    found = of_two(trained(1, 4), trained(2, 1, p=0.6))
    assert (found.covers, found.test, found.probability) == ("images", "t", None)


@given(SEED, SEEDS, SEEDS, IMAGES, st.booleans())
def test_a_comparison_turns_round_with_its_experiments(
    seed: int, seeds_a: int, seeds_b: int, images: int, same_seeds: bool
) -> None:
    a = trained(seed, seeds_a, images)
    b = trained(seed + 1, seeds_a if same_seeds else seeds_b, images, p=0.6)
    ab, ba = of_two(a, b, same_seeds=same_seeds), of_two(b, a, same_seeds=same_seeds)
    assert ab.difference == pytest.approx(-ba.difference)
    assert ab.interval == pytest.approx((-ba.interval.high, -ba.interval.low))
    assert ab.p_value == pytest.approx(ba.p_value)
    assert ab.effect == pytest.approx(-ba.effect)
    assert ab.probability is not None
    assert ba.probability is not None
    assert ab.probability + ba.probability == pytest.approx(1)
    assert -1 <= ab.interval.low <= ab.difference <= ab.interval.high <= 1
    # Unless it was cut at ±1, an interval leaves out 0 if, and only if, p is below 5 %.
    if -1 < ab.interval.low < ab.interval.high < 1 and abs(ab.p_value - 0.05) > 1e-9:
        assert (ab.interval.low <= 0 <= ab.interval.high) == (ab.p_value > 0.05)


def test_an_experiment_is_as_good_as_itself() -> None:
    right = trained(1, 3)
    found = of_two(right, right)
    assert (found.difference, found.p_value, found.effect) == (0, 1, 0)
    assert found.probability == pytest.approx(0.5)


def test_luck_that_a_seed_brings_to_both_is_no_variance_of_differences_seed_by_seed() -> None:
    rng = np.random.default_rng(1)
    luck = np.array([0.5, 0.7, 0.9])[:, None]
    a, b = rng.random((2, 3, 2000)) < np.stack([luck, luck - 0.05])
    assert estimate(a, b).seeds.variance > 100 * estimate(a, b, same_seeds=True).seeds.variance
    assert better(a, b) < 0.7 < 0.9 < better(a, b, same_seeds=True)


def test_differences_seed_by_seed_need_the_same_number_of_seeds() -> None:
    with pytest.raises(ValueError, match="do not have the same seeds"):
        estimate(trained(1, 3), trained(2, 1), same_seeds=True)


def test_several_comparisons_are_adjusted_and_can_show_less_each() -> None:
    experiments = {name: trained(number, 3) for number, name in enumerate("abc")}
    ab, _, _ = contrasts(experiments)
    alone = of_two(experiments["a"], experiments["b"])
    assert ab.p_value == alone.p_value == alone.p_holm < ab.p_holm
    assert ab.smallest > alone.smallest > alone.smallest_with_any_seeds


@pytest.mark.parametrize(("a", "b", "h"), [(0.5, 0.25, 0.524), (0.65, 0.5, 0.304), (1, 0, math.pi)])
def test_the_effect_size_is_cohens(a: float, b: float, h: float) -> None:
    # Cohen 1988, table 6.2.2: 1.571 for 0.50, 1.047 for 0.25 and 1.875 for 0.65.
    assert cohens_h(a, b) == pytest.approx(h, abs=1e-3)


# The study beside ours


def test_a_published_figure_is_inside_or_outside_of_what_one_more_training_would_give() -> None:
    right = trained(1, 3, 2000)
    low, high = prediction(right, 90_000)
    assert low < accuracy(right).mean < high
    assert replication(right, low + 1e-6, 90_000).inside
    assert replication(right, low - 1e-6, 90_000).inside is False
    assert replication(right[:1], low, 90_000) == Replication(low, None, None)


def test_fewer_images_of_theirs_make_the_prediction_wider() -> None:
    right = trained(1, 3, 2000)
    widths = [np.ptp(prediction(right, images)) for images in (100, 2000, 90_000)]
    assert widths == sorted(widths, reverse=True)


def test_what_one_seed_cannot_say_is_said() -> None:
    assert limits({"a": 1, "b": 1}) == (
        "Every experiment was trained with one seed. Intervals and tests cover the choice of the "
        "test images alone: they cannot say whether another seed would give the same order."
    )
    assert limits({"a": 1, "b": 3, "c": 1}).startswith("a and c were trained with one seed.")
    assert "of the seeds" in limits({"a": 3, "b": 3})


def test_the_verdict_on_the_study_says_what_differs() -> None:
    right = trained(1, 3, 2000)
    found = replication(right, 0.487, 90_000)
    text = replicated("frozen", found, 90_000, ["The seed is 1; the study's is 524."], 1)
    assert text.startswith("The study's 48.7 % of frozen is outside ")
    assert text.endswith("That may be due to what differs: The seed is 1; the study's is 524.")
    assert "cannot be judged" in replicated("frozen", Replication(0.5, None, None), 10, [])
