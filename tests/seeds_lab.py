"""Experiments trained with several seeds, made from random numbers whose expectation is known."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

HARDNESS = 4.0
"""Standard deviation of the logits of images: most are nearly always right or nearly always wrong,
as with a trained network."""

SLOPE = 1 / np.sqrt(2 * np.pi * (HARDNESS**2 + 1.7**2))
"""Change of the accuracy near 50 % per change of all logits."""


class Lab(NamedTuple):
    """What the experiments of a simulated comparison have in common."""

    seeds: int
    images: int = 2000
    spread: tuple[float, ...] = (0.006, 0.006)
    """Standard deviation of the expected accuracy between seeds, for each experiment."""
    offset: tuple[float, ...] = (0.0, 0.0)
    """What is added to the logits of each experiment."""
    shared: float = 0.9
    """Correlation of the logits of an image in two experiments."""

    def trained(self, rng: np.random.Generator) -> list[npt.NDArray[np.bool_]]:
        """(seeds, images) of each experiment, on the same images."""
        common = rng.normal(size=self.images) * np.sqrt(self.shared)
        tables = []
        for spread, offset in zip(self.spread, self.offset, strict=True):
            own = rng.normal(size=self.images) * np.sqrt(1 - self.shared)
            lucky = offset + rng.normal(size=(self.seeds, 1)) * spread / SLOPE
            logit = HARDNESS * (common + own) + lucky
            u = rng.random((self.seeds, self.images), np.float32)
            tables.append(u * (1 + np.exp(-logit.astype(np.float32))) < 1)
        return tables

    def expected(self, experiment: int) -> float:
        """The accuracy over all images and seeds."""
        deviation = float(np.hypot(HARDNESS, self.spread[experiment] / SLOPE))
        return _accuracy(self.offset[experiment], deviation)

    def published(self, rng: np.random.Generator, experiment: int, images: int) -> float:
        """The accuracy of one new training on new images."""
        lucky = rng.normal() * self.spread[experiment] / SLOPE
        expected = _accuracy(self.offset[experiment] + lucky, HARDNESS)
        return float(rng.binomial(images, expected)) / images


NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(200)


def _accuracy(offset: float, deviation: float) -> float:
    """Over images whose logits are normal."""
    return float((WEIGHTS / (1 + np.exp(-offset - deviation * NODES))).sum() / WEIGHTS.sum())
