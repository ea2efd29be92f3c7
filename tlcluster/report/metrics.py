"""Predictions → test metrics: accuracy, per class, per origin, and which experiment is better."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, chi2
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tlcluster.cinic10 import ORIGINS, origin_of
from tlcluster.errors import UserError

CONFIDENCE = 0.95
SIGNIFICANT = 0.05

FEW_DISCORDANT = 25
"""Below this many discordant pairs McNemar's test is the exact one; the customary bound for the
chi-square approximation."""

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


class Interval(NamedTuple):
    """A two-sided 95 % confidence interval."""

    low: float
    high: float


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


class Comparison(NamedTuple):
    """Two experiments on the same test images."""

    a: str
    b: str
    only_a: int
    """Images that `a` got right and `b` wrong."""
    only_b: int
    difference: float
    """Accuracy of `a` less accuracy of `b`."""
    interval: Interval
    """Of the difference."""
    test: Literal["exact", "chi-square"]
    p_value: float
    p_holm: float
    """`p_value` adjusted for all the comparisons that were made together."""


def evaluate(predictions: Predictions, classes: Sequence[str], *, origins: bool = True) -> Metrics:
    """The metrics of at least one prediction, per origin only if `origins` is true.

    The predicted class is the most probable one, the first of equals. Macro
    averages are plain means over all `classes`.
    """
    label = predictions.label
    predicted = predictions.probabilities.argmax(axis=1)
    right = label == predicted
    every = range(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(
        label, predicted, labels=every, zero_division=0
    )
    origin = np.array([origin_of(source) if origins else "" for source in predictions.source])
    return Metrics(
        images=len(label),
        loss=cross_entropy(predictions),
        accuracy=float(right.mean()),
        interval=wilson(int(right.sum()), len(right)),
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
            )
            for name in ORIGINS
            if (here := origin == name).any()
        ),
        confusion=tuple(
            tuple(int(count) for count in row)
            for row in confusion_matrix(label, predicted, labels=every)
        ),
    )


def cross_entropy(predictions: Predictions) -> float:
    """Mean −log p of the true class, p clipped to [1e-7, 1 − 1e-7] as in Keras; NaN if a p is."""
    rows = np.arange(len(predictions.label))
    p = predictions.probabilities[rows, predictions.label].astype(np.float64)
    return float(-np.log(np.clip(p, _EPSILON, 1 - _EPSILON)).mean())


def wilson(successes: int, trials: int) -> Interval:
    """Wilson's score interval of a proportion.

    E. B. Wilson, "Probable inference, the law of succession, and statistical
    inference", J. Am. Stat. Assoc. 22 (1927) 209–212.
    """
    low, high = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(low), float(high))


def mcnemar(only_a: int, only_b: int) -> tuple[Literal["exact", "chi-square"], float]:
    """McNemar's test that two classifiers are equally often right: which form of it, and p.

    Only the images count that one classifier got right and the other wrong. If
    there are few, this is the exact two-sided binomial test, else chi-square
    with one degree of freedom and Edwards' continuity correction.

    Q. McNemar, Psychometrika 12 (1947) 153–157; A. L. Edwards, Psychometrika
    13 (1948) 185–187; for classifiers, T. G. Dietterich, Neural Computation 10
    (1998) 1895–1923.
    """
    discordant = only_a + only_b
    if discordant < FEW_DISCORDANT:
        return "exact", float(binomtest(only_a, discordant).pvalue) if discordant else 1.0
    statistic = max(abs(only_a - only_b) - 1, 0) ** 2 / discordant
    return "chi-square", float(chi2.sf(statistic, df=1))


def paired_difference(both: int, only_a: int, only_b: int, neither: int) -> Interval:
    """Newcombe's interval for the difference of two proportions of the same things.

    Method 10 of R. G. Newcombe, "Improved confidence intervals for the
    difference between binomial proportions based on paired data", Statistics
    in Medicine 17 (1998) 2635–2650: Wilson's intervals of the two proportions,
    put together with their correlation. It stays within [−1, 1] and has a
    width where no pair is discordant.
    """
    n = both + only_a + only_b + neither
    a, b = (both + only_a) / n, (both + only_b) / n
    a_low, a_high = wilson(both + only_a, n)
    b_low, b_high = wilson(both + only_b, n)
    phi = _correlation(both, only_a, only_b, neither)
    low, high = a - a_low, b_high - b
    down = low**2 - 2 * phi * low * high + high**2
    low, high = b - b_low, a_high - a
    up = low**2 - 2 * phi * low * high + high**2
    return Interval(a - b - math.sqrt(down), a - b + math.sqrt(up))


def _correlation(both: int, only_a: int, only_b: int, neither: int) -> float:
    """The phi coefficient. A positive numerator is corrected for continuity."""
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if margins == 0:
        return 0.0
    numerator = float(both * neither - only_a * only_b)
    if numerator > 0:
        numerator = max(numerator - (both + only_a + only_b + neither) / 2, 0)
    return numerator / math.sqrt(margins)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values, in the given order.

    S. Holm, "A simple sequentially rejective multiple test procedure",
    Scandinavian Journal of Statistics 6 (1979) 65–70.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return tuple(adjusted)


def compare(experiments: Mapping[str, Predictions]) -> tuple[Comparison, ...]:
    """Every two experiments, in their order, on the same test images.

    Raises:
        UserError: two experiments were not tested on the same images.
    """
    pairs = list(itertools.combinations(experiments, 2))
    tables = [_table(a, b, experiments[a], experiments[b]) for a, b in pairs]
    tests = [mcnemar(only_a, only_b) for _, only_a, only_b, _ in tables]
    adjusted = holm([p_value for _, p_value in tests])
    return tuple(
        Comparison(
            a=a,
            b=b,
            only_a=table[1],
            only_b=table[2],
            difference=(table[1] - table[2]) / sum(table),
            interval=paired_difference(*table),
            test=test,
            p_value=p_value,
            p_holm=p_holm,
        )
        for (a, b), table, (test, p_value), p_holm in zip(
            pairs, tables, tests, adjusted, strict=True
        )
    )


def _table(a_name: str, b_name: str, a: Predictions, b: Predictions) -> tuple[int, int, int, int]:
    """Numbers of images that both got right, only `a`, only `b`, and neither."""
    if not (np.array_equal(a.source, b.source) and np.array_equal(a.label, b.label)):
        raise UserError(
            f"{a_name} and {b_name} were tested on different images and cannot be compared; "
            "run both again under one new run name"
        )
    right_a = a.probabilities.argmax(axis=1) == a.label
    right_b = b.probabilities.argmax(axis=1) == b.label
    return (
        int((right_a & right_b).sum()),
        int((right_a & ~right_b).sum()),
        int((~right_a & right_b).sum()),
        int((~right_a & ~right_b).sum()),
    )
