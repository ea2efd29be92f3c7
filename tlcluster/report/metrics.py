"""Predictions → test metrics: accuracy, per class, per origin, and which experiment is better."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tlcluster.cinic10 import ORIGINS, origin_of
from tlcluster.errors import UserError
from tlcluster.report.calibration import Calibration, calibration
from tlcluster.report.seeds.accuracy import accuracy
from tlcluster.report.seeds.contrast import contrasts
from tlcluster.report.seeds.proportions import Interval, wilson

_EPSILON = 1e-7
"""`keras.backend.epsilon()`: Keras clips probabilities to it before it takes their logarithm."""


class Predictions(NamedTuple):
    """The predictions of an experiment for every test image, in index order."""

    source: npt.NDArray[np.str_]
    """(n,) names of the images."""
    label: npt.NDArray[np.int64]
    """(n,) the true classes, positions in the dataset's classes."""
    probabilities: npt.NDArray[np.float32]
    """(n, classes)."""


class ClassMetrics(NamedTuple):
    """One class against all others. A ratio is 0 if its denominator is 0."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    """Test images of this class."""


class OriginMetrics(NamedTuple):
    """The test images of one origin."""

    name: str
    accuracy: float
    interval: Interval
    support: int
    of_class: tuple[int, ...]
    """Test images of each class that are of this origin."""
    wrong: tuple[int, ...]
    """How many of these were taken for another class."""


class Metrics(NamedTuple):
    """The metrics of one experiment on the test split."""

    images: int
    loss: float
    """Mean categorical cross-entropy, natural logarithm."""
    accuracy: float
    interval: Interval
    precision_macro: float
    recall_macro: float
    f1_macro: float
    per_class: tuple[ClassMetrics, ...]
    per_origin: tuple[OriginMetrics, ...]
    """In the order of `cinic10.ORIGINS`; only origins that occur, and none unless the data set is
    CINIC-10."""
    confusion: tuple[tuple[int, ...], ...]
    """Images by true class (row) and predicted class (column)."""
    calibration: Calibration


class Comparison(NamedTuple):
    """Two experiments on the same test images, with one seed each."""

    a: str
    b: str
    only_a: int
    """Images that `a` got right and `b` wrong."""
    only_b: int
    difference: float
    """Accuracy of `a` less accuracy of `b`."""
    interval: Interval
    """Of the difference."""
    test: Literal["exact", "chi-square", "t"]
    p_value: float
    p_holm: float
    """`p_value` adjusted for all the comparisons that were made together."""
    effect: float
    """Cohen's h; see `tlcluster.report.seeds.contrast.cohens_h`."""


def evaluate(predictions: Predictions, classes: Sequence[str], *, origins: bool = True) -> Metrics:
    """The metrics of at least one prediction, per origin only if `origins` is true.

    The predicted class is the most probable one, the first of equals. Macro
    averages are plain means over all `classes`.
    """
    label = predictions.label
    predicted = predictions.probabilities.argmax(axis=1)
    right = label == predicted
    overall = accuracy(right[np.newaxis])
    every = range(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(
        label, predicted, labels=every, zero_division=0
    )
    origin = np.array([origin_of(source) if origins else "" for source in predictions.source])
    return Metrics(
        images=len(label),
        loss=cross_entropy(predictions),
        accuracy=overall.mean,
        interval=overall.interval,
        precision_macro=float(precision.mean()),
        recall_macro=float(recall.mean()),
        f1_macro=float(f1.mean()),
        per_class=tuple(
            ClassMetrics(name, float(p), float(r), float(f), int(n))
            for name, p, r, f, n in zip(classes, precision, recall, f1, support, strict=True)
        ),
        per_origin=tuple(
            OriginMetrics(
                name,
                float(right[here].mean()),
                wilson(int(right[here].sum()), len(right[here])),
                len(right[here]),
                _counts(label[here], len(classes)),
                _counts(label[here & ~right], len(classes)),
            )
            for name in ORIGINS
            if (here := origin == name).any()
        ),
        confusion=tuple(
            tuple(int(count) for count in row)
            for row in confusion_matrix(label, predicted, labels=every)
        ),
        calibration=calibration(label, predictions.probabilities),
    )


def _counts(label: npt.NDArray[np.int64], classes: int) -> tuple[int, ...]:
    return tuple(int(count) for count in np.bincount(label, minlength=classes))


def cross_entropy(predictions: Predictions) -> float:
    """Mean −log p of the true class, p clipped to [1e-7, 1 − 1e-7] as in Keras; NaN if a p is."""
    rows = np.arange(len(predictions.label))
    p = predictions.probabilities[rows, predictions.label].astype(np.float64)
    return float(-np.log(np.clip(p, _EPSILON, 1 - _EPSILON)).mean())


def compare(experiments: Mapping[str, Predictions]) -> tuple[Comparison, ...]:
    """Every two experiments, in their order, on the same test images.

    Raises:
        UserError: two experiments were not tested on the same images.
    """
    for a, b in itertools.combinations(experiments, 2):
        if not same_images(experiments[a], experiments[b]):
            raise UserError(
                f"{a} and {b} were tested on different images and cannot be compared; "
                "run both again under one new run name"
            )
    right = {name: right_of(predictions) for name, predictions in experiments.items()}
    return tuple(
        Comparison(
            a=one.a,
            b=one.b,
            only_a=int((right[one.a] & ~right[one.b]).sum()),
            only_b=int((right[one.b] & ~right[one.a]).sum()),
            difference=one.difference,
            interval=one.interval,
            test=one.test,
            p_value=one.p_value,
            p_holm=one.p_holm,
            effect=one.effect,
        )
        for one in contrasts({name: row[np.newaxis] for name, row in right.items()})
    )


def right_of(predictions: Predictions) -> npt.NDArray[np.bool_]:
    """(n,) whether the most probable class, the first of equals, is the true one."""
    right: npt.NDArray[np.bool_] = predictions.probabilities.argmax(axis=1) == predictions.label
    return right


def same_images(a: Predictions, b: Predictions) -> bool:
    """Whether two trainings were tested on the same images, in the same order."""
    return np.array_equal(a.source, b.source) and np.array_equal(a.label, b.label)
