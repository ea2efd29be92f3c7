"""Which test images are worth a look: confident mistakes, and those that experiments dispute."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tlcluster.report.calibration import top_confidence
from tlcluster.report.metrics import Predictions

MISTAKES = 16
"""Most confident mistakes of an experiment that are listed."""

DISPUTED = 24
"""Images that are listed because the experiments disagree."""

MOST_EXPERIMENTS = 6
"""The page shows mistakes of up to this many experiments, those with the highest accuracy."""

_ROWS = 4096
"""Images whose probabilities are compared at once, in float64."""


class Said(NamedTuple):
    """What one experiment said of an image."""

    experiment: str
    predicted: int
    """Position in the classes; the most probable one, the first of equals."""
    probability: float
    """Of that class."""


class Mistake(NamedTuple):
    """An image that an experiment took for another class."""

    image: int
    """Its number in the test split, from 0 on."""
    source: str
    true: int
    """Position in the classes."""
    said: Said


class Disputed(NamedTuple):
    """An image of which the experiments say different classes."""

    image: int
    source: str
    true: int
    said: tuple[Said, ...]
    """One for each experiment."""


class Gallery(NamedTuple):
    """Test images to look at. All of it is of the run's first seed."""

    shown: tuple[str, ...]
    """The experiments whose mistakes the page shows, in the order of the run."""
    confident: Mapping[str, tuple[Mistake, ...]]
    """Experiment → its mistakes, the most confident first."""
    by_class: Mapping[str, Mapping[int, Mistake]]
    """Experiment → true class → its most confident mistake; without classes that have none."""
    disputed: tuple[Disputed, ...]
    """The most disputed first."""

    @property
    def images(self) -> list[int]:
        """The numbers of the images whose pictures the page shows, in order."""
        return sorted({one.image for one in self.occurrences})

    @property
    def sources(self) -> dict[int, str]:
        """Number of such an image → its name."""
        return {one.image: one.source for one in self.occurrences}

    @property
    def occurrences(self) -> Iterator[Mistake | Disputed]:
        """What the page shows; an image may be in it several times."""
        for name in self.shown:
            yield from self.confident[name]
            yield from self.by_class[name].values()
        yield from self.disputed


def gallery(tested: Mapping[str, Predictions], classes: Sequence[int]) -> Gallery:
    """What is worth a look.

    Args:
        tested: experiment → its predictions, all of the same images.
        classes: positions of those that are looked at one by one.
    """
    ranked = sorted(
        tested,
        key=lambda name: -float((_predicted(tested[name]) == tested[name].label).mean()),
    )
    best = set(ranked[:MOST_EXPERIMENTS])
    mistakes = {name: _mistakes(told) for name, told in tested.items()}
    return Gallery(
        shown=tuple(name for name in tested if name in best),
        confident={
            name: tuple(_mistake(name, tested[name], image) for image in order[:MISTAKES])
            for name, order in mistakes.items()
        },
        by_class={
            name: {
                position: _mistake(name, tested[name], int(of_class[0]))
                for position in classes
                if len(of_class := order[tested[name].label[order] == position])
            }
            for name, order in mistakes.items()
        },
        disputed=_disputed(tested),
    )


def _mistakes(told: Predictions) -> npt.NDArray[np.int64]:
    """Numbers of the images that were taken for another class, the most confident first, of
    equals the first of the split. Without those whose probability is none."""
    confidence = top_confidence(told.probabilities)
    wrong = np.flatnonzero((_predicted(told) != told.label) & np.isfinite(confidence))
    return wrong[np.argsort(-confidence[wrong], kind="stable")]


def _disputed(tested: Mapping[str, Predictions]) -> tuple[Disputed, ...]:
    """By the number of different classes that the experiments say, then by the Jensen–Shannon
    divergence of their probabilities, which is the larger the surer they are of these; of equals,
    the first of the split."""
    every = list(tested.values())
    if len(every) < 2:
        return ()
    said = np.sort([_predicted(told) for told in every], axis=0)
    different = 1 + (said[1:] != said[:-1]).sum(axis=0)
    for told in every:
        different[~np.isfinite(top_confidence(told.probabilities))] = 0
    few = np.sort(different)[-DISPUTED:][0]
    candidates = np.flatnonzero(different >= max(few, 2))
    apart = np.concatenate(
        [
            _divergence([told.probabilities[candidates[start : start + _ROWS]] for told in every])
            for start in range(0, max(len(candidates), 1), _ROWS)
        ]
    )
    order = candidates[np.lexsort((candidates, -apart, -different[candidates]))]
    return tuple(
        Disputed(
            int(image),
            _name(every[0], image),
            int(every[0].label[image]),
            tuple(_said(name, told, image) for name, told in tested.items()),
        )
        for image in order[:DISPUTED]
    )


def _divergence(of: Sequence[npt.NDArray[np.floating]]) -> npt.NDArray[np.float64]:
    """Probabilities (n, classes) of each experiment → (n,) how far they are apart, in bits."""
    every = [np.clip(one.astype(np.float64), 0, 1) for one in of]
    mean, single = np.mean(every, axis=0), np.mean([_entropy(one) for one in every], axis=0)
    apart: npt.NDArray[np.float64] = _entropy(mean) - single
    return apart


def _entropy(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    bits: npt.NDArray[np.float64] = -(p * np.log2(np.where(p > 0, p, 1.0))).sum(axis=1)
    return bits


def _predicted(told: Predictions) -> npt.NDArray[np.int64]:
    predicted: npt.NDArray[np.int64] = told.probabilities.argmax(axis=1)
    return predicted


def _said(name: str, told: Predictions, image: int) -> Said:
    row = told.probabilities[image]
    predicted = int(row.argmax())
    return Said(name, predicted, min(float(row[predicted]), 1.0))


def _mistake(name: str, told: Predictions, image: int) -> Mistake:
    return Mistake(int(image), _name(told, image), int(told.label[image]), _said(name, told, image))


def _name(told: Predictions, image: int) -> str:
    """Half a pair of surrogates, which UTF-8 cannot hold, becomes a question mark."""
    return str(told.source[image]).encode("utf-8", "replace").decode()
