"""Who was right about which image, seed by seed → means, and where their variance comes from.

The model has crossed random effects: an image is hard or easy, a seed is lucky
or not, and what is left belongs to one seed and one image. Its variances follow
from mean squares (R. Henderson, "Estimation of variance and covariance
components", Biometrics 9 (1953) 226–252): no distribution is assumed.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tlcluster.report.seeds.estimate import NOTHING, Estimate, Spread, total

Right = npt.NDArray[np.bool_]
"""(seeds, images): whether the training with this seed was right about this test image."""

Covers = Literal["images", "images and seeds"]
"""The sources of error that an interval holds."""


class Moments(NamedTuple):
    """What a table (seeds, images) holds, as far as the statistics need it."""

    seeds: int
    of_images: npt.NDArray[np.float64]
    """(images,) means over the seeds."""
    of_seeds: npt.NDArray[np.float64]
    """(seeds,) means over the images."""
    between: float
    """Variance of `of_seeds`; 0 with one seed, which says nothing about it."""
    noise: float
    """The part of the variance of `of_images` that other seeds would not repeat; 0 with one seed,
    which does not tell it from the images' own."""

    @property
    def images(self) -> int:
        return len(self.of_images)

    @property
    def value(self) -> float:
        return float(self.of_images.mean())

    @property
    def seeds_spread(self) -> Spread:
        """Of the mean of the seeds."""
        return Spread(self.between / self.seeds, self.seeds - 1) if self.seeds > 1 else NOTHING

    @property
    def one_seed(self) -> Spread:
        """Of the difference between one more seed and the mean of these; needs two."""
        return Spread(self.between * (1 + 1 / self.seeds), self.seeds - 1)


def moments(table: npt.NDArray[np.bool_] | npt.NDArray[np.int8]) -> Moments:
    """The moments of a table (seeds, images) with one seed and one image at least."""
    seeds, images = table.shape
    of_images = table.sum(axis=0, dtype=np.int32) / seeds
    of_seeds = table.sum(axis=1, dtype=np.int32) / images
    if seeds == 1:
        return Moments(seeds, of_images, of_seeds, 0.0, 0.0)
    # Values are −1, 0 and 1, so that the number of those that are not 0 is the sum of squares.
    squares = np.count_nonzero(table, axis=1) / images
    within = float((squares - of_seeds**2).mean()) * images / max(images - 1, 1)
    return Moments(
        seeds,
        of_images,
        of_seeds,
        float(of_seeds.var(ddof=1)),
        max((within - _variance(of_images)) / (seeds - 1), 0.0),
    )


def mean(of: Moments) -> Estimate:
    """The mean over images and seeds. With one seed it covers images alone."""
    return Estimate(of.value, of.seeds_spread, _of_images(of.of_images, of.noise))


def difference(a: Moments, b: Moments) -> Estimate:
    """The mean of `a` less that of `b`, on the same images and with seeds that are independent.

    Unless both have two seeds it covers images alone.
    """
    values = a.of_images - b.of_images
    if min(a.seeds, b.seeds) == 1:
        return Estimate(float(values.mean()), NOTHING, _of_images(values, 0.0))
    return Estimate(
        float(values.mean()),
        total(a.seeds_spread, b.seeds_spread),
        _of_images(values, a.noise + b.noise),
    )


def _of_images(values: npt.NDArray[np.float64], noise: float) -> Spread:
    """Of the mean of the images' values. The variance of these less the noise may be below 0 by
    chance; no mean of n images is known better than to one image."""
    images = len(values)
    return Spread(max((_variance(values) - noise) / images, images**-2), max(images - 1, 1))


def _variance(values: npt.NDArray[np.float64]) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0
