"""Calibration: whether predictions are right as often as their probabilities say."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

BINS = 15
"""Of the same width, from 0 to 1; as many as in Guo et al."""

EXCESS = 1e-3
"""How far above 1 a probability may be by rounding, or below 0. Records may hold any number."""

_ROWS = 2**14
"""Images whose probabilities are calculated with at once, in float64."""


class Calibration(NamedTuple):
    """How far the probabilities of one training can be believed on the test images.

    The confidence of a prediction is the probability of the class that was predicted. Bin number
    k, from 0 on, holds the images with a confidence above k / `BINS` and up to (k + 1) / `BINS`.
    """

    error: float
    """Expected calibration error, between 0 and 1: the distance between accuracy and mean
    confidence of a bin, averaged over the images. NaN if a confidence is no probability."""
    brier: float
    """Brier score: squared distance between probabilities and truth, summed over the classes and
    averaged over the images; between 0 and 2. NaN like `error`."""
    confidence: float
    """Mean over all images; NaN like `error`."""
    images: tuple[int, ...]
    """Of each bin."""
    confidences: tuple[float | None, ...]
    """Mean of each bin; None if it is empty."""
    accuracies: tuple[float | None, ...]
    """Of each bin; None if it is empty."""


def calibration(
    label: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating]
) -> Calibration:
    """The calibration of predictions (n,), (n, classes) with one image at least.

    The expected calibration error is that of C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On
    calibration of modern neural networks", ICML 2017, arXiv:1706.04599, equation 3. The score is
    that of G. W. Brier, Monthly Weather Review 78 (1950) 1–3. Sums are exact, so the order of the
    images does not matter.
    """
    confidence = top_confidence(probabilities)
    right = probabilities.argmax(axis=1) == label
    known = np.isfinite(confidence)
    # Edge k is k / BINS as float64 has it; a bin holds its upper edge.
    edges = np.arange(1, BINS) / BINS
    bins = np.searchsorted(edges, confidence, side="left")
    images, confidences, accuracies, gaps = [], [], [], []
    for number in range(BINS):
        here = known & (bins == number)
        count, correct = int(here.sum()), int((here & right).sum())
        total = math.fsum(confidence[here])
        images.append(count)
        confidences.append(total / count if count else None)
        accuracies.append(correct / count if count else None)
        gaps.append(abs(correct - total))
    whole = bool(known.all())
    n = len(label)
    return Calibration(
        error=min(math.fsum(gaps) / n, 1.0) if whole else math.nan,
        brier=_brier(label, probabilities) if whole else math.nan,
        confidence=math.fsum(confidence) / n if whole else math.nan,
        images=tuple(images),
        confidences=tuple(confidences),
        accuracies=tuple(accuracies),
    )


def top_confidence(probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """(n, classes) → (n,) the largest probability of each image; NaN if one of its numbers is no
    probability."""
    largest = probabilities.max(axis=1).astype(np.float64)
    usable = (probabilities.min(axis=1) >= -EXCESS) & (largest <= 1 + EXCESS)  # False for NaN
    return np.where(usable, np.minimum(largest, 1.0), np.nan)


def _brier(label: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating]) -> float:
    """The score; all numbers are probabilities."""
    scores: list[float] = []
    for start in range(0, len(label), _ROWS):
        rows = slice(start, start + _ROWS)
        distance = probabilities[rows].astype(np.float64)
        distance[np.arange(len(distance)), label[rows]] -= 1.0
        scores += np.square(distance).sum(axis=1).tolist()
    return math.fsum(scores) / len(label)
