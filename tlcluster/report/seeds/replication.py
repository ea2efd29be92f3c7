"""Whether a figure published elsewhere is what one more training of ours could have given."""

from typing import NamedTuple

from tlcluster.report.seeds.estimate import Estimate, Spread
from tlcluster.report.seeds.moments import Right, mean, moments
from tlcluster.report.seeds.proportions import Interval


class Replication(NamedTuple):
    """A published accuracy beside ours."""

    published: float
    interval: Interval | None
    """Where one new training lies with 95 %, on other test images; None with one seed of ours."""
    inside: bool | None
    """Whether `published` is in `interval`; None with one seed of ours."""


def replication(right: Right, published: float, test_images: int) -> Replication:
    """Our trainings of an experiment beside the one that somebody published.

    Args:
        right: our (seeds, images).
        published: their accuracy, of one training.
        test_images: how many they tested it on.
    """
    if len(right) == 1:
        return Replication(published, None, None)
    interval = prediction(right, test_images)
    return Replication(published, interval, interval.low <= published <= interval.high)


def prediction(right: Right, test_images: int) -> Interval:
    """The 95 % prediction interval for the accuracy of one new training on new test images.

    Its seed and its images are new, but of the same kind as ours. The error of
    our mean and that of the new number are added, as in J. R. Spence and D. J.
    Stanley, "Prediction interval: what to expect when you're expecting… a
    replication", PLOS ONE 11 (2016) e0162874.

    Args:
        right: (seeds, images), two seeds at least.
        test_images: number of new images.
    """
    of = moments(right)
    ours = mean(of).images
    # `of.one_seed` has the noise of a seed on our number of images, not on theirs.
    noise = of.noise * of.seeds * (1 / test_images - 1 / of.images)
    theirs = ours.variance * of.images / test_images + noise
    both = Spread(max(ours.variance + theirs, 0.0), ours.df)
    low, high = Estimate(of.value, of.one_seed, both).interval()
    return Interval(max(low, 0.0), min(high, 1.0))
