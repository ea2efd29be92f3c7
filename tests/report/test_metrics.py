"""Test metrics: against scikit-learn, worked examples from the literature, and what must hold."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import classification_report, log_loss

from tlcluster.errors import UserError
from tlcluster.report.metrics import Predictions, compare, cross_entropy, evaluate
from tlcluster.report.seeds.proportions import paired_difference

CLASSES = ("cat", "dog", "ship")
SOURCES = ("cifar-10-test-1.png", "n02084071_7.png", "photo.png")


def predictions(label: Sequence[int], predicted: Sequence[int], p: float = 0.8) -> Predictions:
    """The predicted class has probability `p`, the two others share the rest."""
    probabilities = np.full((len(label), len(CLASSES)), (1 - p) / 2, np.float32)
    probabilities[np.arange(len(label)), predicted] = p
    source = np.array([SOURCES[number % 3] for number in range(len(label))], np.str_)
    return Predictions(source, np.array(label, np.int64), probabilities)


def random_predictions(seed: int, images: int = 200) -> Predictions:
    rng = np.random.default_rng(seed)
    label = np.arange(images) % 3
    odds = np.exp(rng.normal(size=(images, 3)) + 1.5 * np.eye(3)[label])
    probabilities = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    source = np.array([SOURCES[number % 3] for number in rng.integers(0, 3, images)], np.str_)
    return Predictions(source, label.astype(np.int64), probabilities)


# One experiment


def test_the_metrics_of_a_few_images_are_those_counted_by_hand() -> None:
    label, predicted = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 0]
    metrics = evaluate(predictions(label, predicted), CLASSES)
    assert metrics.images == 6
    assert metrics.accuracy == 4 / 6
    assert metrics.confusion == ((2, 1, 0), (0, 2, 0), (1, 0, 0))
    cat, dog, ship = metrics.per_class
    assert cat == ("cat", pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3), 3)
    assert dog == ("dog", pytest.approx(2 / 3), 1.0, pytest.approx(0.8), 2)
    assert ship == ("ship", 0.0, 0.0, 0.0, 1)
    assert metrics.precision_macro == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert metrics.recall_macro == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert metrics.f1_macro == pytest.approx((2 / 3 + 0.8 + 0) / 3)
    assert metrics.loss == pytest.approx(-(4 * math.log(0.8) + 2 * math.log(0.1)) / 6)


def test_the_origins_are_told_from_the_names_and_counted_apart() -> None:
    metrics = evaluate(predictions([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 0]), CLASSES)
    assert [(one.name, one.accuracy, one.support) for one in metrics.per_origin] == [
        ("cifar", 1.0, 2),
        ("imagenet", 1.0, 2),
        ("other", 0.0, 2),
    ]


def test_an_origin_that_does_not_occur_is_left_out() -> None:
    only_cifar = predictions([0], [0])
    assert [one.name for one in evaluate(only_cifar, CLASSES).per_origin] == ["cifar"]


@pytest.mark.parametrize("seed", range(3))
def test_the_metrics_are_those_of_scikit_learn(seed: int) -> None:
    told = random_predictions(seed)
    metrics = evaluate(told, CLASSES)
    report = classification_report(
        told.label, told.probabilities.argmax(axis=1), target_names=CLASSES, output_dict=True
    )
    assert metrics.accuracy == pytest.approx(report["accuracy"])
    macro = report["macro avg"]
    assert metrics.precision_macro == pytest.approx(macro["precision"])
    assert metrics.recall_macro == pytest.approx(macro["recall"])
    assert metrics.f1_macro == pytest.approx(macro["f1-score"])
    for of_class in metrics.per_class:
        theirs = report[of_class.name]
        assert of_class[1:] == pytest.approx(
            (theirs["precision"], theirs["recall"], theirs["f1-score"], theirs["support"])
        )
    probabilities = told.probabilities.astype(np.float64)
    expected = log_loss(told.label, probabilities / probabilities.sum(axis=1, keepdims=True))
    assert metrics.loss == pytest.approx(expected, rel=1e-6)


def test_a_probability_of_nothing_costs_what_it_costs_in_keras() -> None:
    # keras.losses.categorical_crossentropy([[1, 0, 0]], [[0, 1, 0]]) is 16.118095.
    assert cross_entropy(predictions([0], [1], p=1.0)) == pytest.approx(16.118095, abs=1e-6)


def test_a_certain_and_right_prediction_costs_next_to_nothing() -> None:
    assert cross_entropy(predictions([1], [1], p=1.0)) == pytest.approx(1e-7, rel=1e-3)


def test_a_diverged_model_has_a_loss_that_is_no_number_and_still_an_accuracy() -> None:
    told = predictions([0, 1], [0, 1])
    told.probabilities[:] = np.nan
    metrics = evaluate(told, CLASSES)
    assert math.isnan(metrics.loss)
    assert metrics.accuracy == 0.5


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_counts_agree_with_each_other_and_the_order_of_images_does_not_matter(
    seed: int, images: int
) -> None:
    told = random_predictions(seed, images)
    metrics = evaluate(told, CLASSES)
    assert sum(map(sum, metrics.confusion)) == images
    assert [sum(row) for row in metrics.confusion] == [one.support for one in metrics.per_class]
    assert sum(one.support for one in metrics.per_origin) == images
    right = sum(metrics.confusion[i][i] for i in range(3))
    assert metrics.accuracy == right / images
    assert metrics.interval.low <= metrics.accuracy <= metrics.interval.high
    order = np.random.default_rng(seed).permutation(images)
    shuffled = evaluate(Predictions(*(field[order] for field in told)), CLASSES)
    assert shuffled._replace(loss=0) == metrics._replace(loss=0)
    assert shuffled.loss == pytest.approx(metrics.loss)


# Two experiments


def test_every_two_experiments_are_compared_on_the_same_images_in_their_order() -> None:
    told = {
        "a": predictions([0] * 10, [0] * 10),
        "b": predictions([0] * 10, [0] * 4 + [1] * 6),
        "c": predictions([0] * 10, [1] + [0] * 9),
    }
    ab, ac, bc = compare(told)
    assert (ab.a, ab.b, ab.only_a, ab.only_b, ab.difference) == ("a", "b", 6, 0, 0.6)
    assert (ac.a, ac.b, ac.only_a, ac.only_b, ac.difference) == ("a", "c", 1, 0, 0.1)
    assert (bc.a, bc.b, bc.only_a, bc.only_b, bc.difference) == ("b", "c", 1, 6, -0.5)
    assert [one.p_value for one in (ab, ac, bc)] == [2 / 2**6, 1.0, pytest.approx(0.125)]
    assert [one.p_holm for one in (ab, ac, bc)] == pytest.approx([6 / 2**6, 1.0, 0.25])
    assert ab.interval == paired_difference(4, 6, 0, 0)


def test_one_experiment_has_nothing_to_be_compared_with() -> None:
    assert compare({"a": predictions([0], [0])}) == ()


def test_experiments_that_saw_different_images_are_not_compared() -> None:
    a = predictions([0, 1], [0, 1])
    b = a._replace(source=a.source[::-1])
    with pytest.raises(UserError, match="a and b were tested on different images"):
        compare({"a": a, "b": b})
