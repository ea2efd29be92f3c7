"""Experiments trained with several seeds, made from random numbers whose expectation is known."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

HARDNESS = 4.0
"""Standard deviation of the logits of images: most are nearly always right or nearly always wrong,
as with a trained network."""

SHARED = 0.9
"""Correlation of the logits of an image in two experiments."""

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(200)


class Lab(NamedTuple):
    """Experiments that are trained with the same number of seeds and tested on the same images."""

    seeds: int
    images: int
    spread: tuple[float, ...]
    """Standard deviation of the expected accuracy between seeds, for each experiment."""
    offset: tuple[float, ...]
    """What is added to the logits of each experiment."""

    def trained(self, rng: np.random.Generator) -> list[npt.NDArray[np.bool_]]:
        """(seeds, images) of each experiment, on the same images."""
        common = rng.normal(size=self.images) * np.sqrt(SHARED)
        tables = []
        for experiment in range(len(self.offset)):
            own = rng.normal(size=self.images) * np.sqrt(1 - SHARED)
            lucky = self.lucky(rng, experiment, self.seeds)
            odds = np.exp((-HARDNESS * (common + own)).astype(np.float32))
            u = rng.random((self.seeds, self.images), np.float32)
            tables.append(u * (1 + odds * np.exp(-lucky[:, None]).astype(np.float32)) < 1)
        return tables

    def expected(self, experiment: int) -> float:
        """The accuracy over all images and seeds."""
        return _accuracy(self.offset[experiment], float(np.hypot(HARDNESS, self._sd(experiment))))

    def published(self, rng: np.random.Generator, experiment: int, images: int) -> float:
        """The accuracy of one new training on new images."""
        expected = _accuracy(float(self.lucky(rng, experiment, 1)[0]), HARDNESS)
        return float(rng.binomial(images, expected)) / images

    def lucky(
        self, rng: np.random.Generator, experiment: int, seeds: int
    ) -> npt.NDArray[np.float64]:
        """What is added to the logits of each seed."""
        return self.offset[experiment] + self._sd(experiment) * rng.normal(size=seeds)

    def _sd(self, experiment: int) -> float:
        """Of the logits between seeds."""
        variance = HARDNESS**2 + 1.7**2  # of a probit that is like the logistic function
        slope = np.exp(-(self.offset[experiment] ** 2) / (2 * variance))
        return float(self.spread[experiment] * np.sqrt(2 * np.pi * variance) / slope)


def _accuracy(offset: float, deviation: float) -> float:
    """Over images whose logits are normal."""
    return float((WEIGHTS / (1 + np.exp(-offset - deviation * NODES))).sum() / WEIGHTS.sum())
