"""Calibration: the expected calibration error and the Brier score, by their definitions."""

import math
import re
from xml.etree import ElementTree

import fake_run
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tlcluster.report.calibration import BINS, Calibration, calibration, top_confidence
from tlcluster.report.figures.reliability import reliability
from tlcluster.report.figures.style import styles
from tlcluster.report.runs import read_run
from tlcluster.report.tables import results
from tlcluster.storage.directory import DirectoryStore


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and probabilities (n, classes) that add up to 1."""
    n, classes = draw(st.integers(1, 40)), draw(st.integers(2, 5))
    odds = draw(hnp.arrays(np.float64, (n, classes), elements=st.floats(0, 1)))
    odds[np.arange(n), draw(hnp.arrays(np.int64, n, elements=st.integers(0, classes - 1)))] += 0.1
    label = draw(hnp.arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    return label, (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def by_definition(label: np.ndarray, probabilities: np.ndarray) -> float:
    """Equation 3 of Guo et al., bin by bin."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == label
    error = 0.0
    for k in range(BINS):
        here = (confidence > k / BINS) & (confidence <= (k + 1) / BINS)
        if here.any():
            error += here.mean() * abs(right[here].mean() - confidence[here].mean())
    return float(error)


@settings(max_examples=40, deadline=None)
@given(predictions())
def test_the_error_is_the_one_of_the_paper_and_between_0_and_1(
    of: tuple[np.ndarray, np.ndarray],
) -> None:
    found = calibration(*of)
    assert 0 <= found.error <= 1
    assert found.error == pytest.approx(by_definition(*of), abs=1e-12)
    # A mean of distances is no less than the distance of the means.
    accuracy = float((of[1].argmax(axis=1) == of[0]).mean())
    assert found.error >= abs(accuracy - found.confidence) - 1e-12
    assert 0 <= found.brier <= 2 + 1e-6
    assert sum(found.images) == len(of[0])


@settings(max_examples=40, deadline=None)
@given(predictions(), st.randoms(use_true_random=False))
def test_the_order_of_the_images_changes_nothing(
    of: tuple[np.ndarray, np.ndarray], random: object
) -> None:
    order = list(range(len(of[0])))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert calibration(of[0][order], of[1][order]) == calibration(*of)


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(1, 20))
def test_what_is_right_as_often_as_it_says_has_no_error(right: int, wrong: int) -> None:
    """All have the same confidence, and this share of them is right."""
    n = right + wrong
    share = max(right, wrong) / n
    label = np.zeros(n, np.int64)
    probabilities = np.full((n, 3), (1 - share) / 2)
    predicted = np.array([0] * max(right, wrong) + [1] * min(right, wrong))
    probabilities[np.arange(n), predicted] = share
    found = calibration(label, probabilities)
    assert found.error == pytest.approx(0, abs=1e-12)
    assert found.confidence == pytest.approx(share)


def test_certainty_that_is_always_right_or_always_wrong_has_the_extremes() -> None:
    sure = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    right = calibration(np.array([0, 1, 2, 0]), sure)
    assert (right.error, right.brier, right.images[-1]) == (0, 0, 4)
    wrong = calibration(np.array([1, 2, 0, 1]), sure)
    assert (wrong.error, wrong.brier, wrong.accuracies[-1]) == (1, 2, 0)


def test_a_bin_holds_its_upper_edge_and_an_empty_one_has_no_mean() -> None:
    third = np.array([[1 / 3, 1 / 3, 1 / 3], [0.34, 0.33, 0.33]])
    found = calibration(np.array([0, 0]), third)
    assert found.images == (0, 0, 0, 0, 1, 1, *[0] * 9)
    assert found.confidences[:4] == (None,) * 4
    assert found.confidences[4] == 1 / 3


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, -0.5, 1.5, 1e30])
def test_what_is_no_probability_makes_the_numbers_unknown_and_no_error(wrong: float) -> None:
    probabilities = np.array([[0.25, 0.75], [0.25, wrong], [0.9, 0.1]], np.float32)
    found = calibration(np.array([1, 0, 0]), probabilities)
    assert math.isnan(found.error)
    assert math.isnan(found.brier)
    assert math.isnan(found.confidence)
    assert sum(found.images) == 2
    assert np.isnan(top_confidence(probabilities)).tolist() == [False, True, False]


def test_a_probability_that_rounding_made_larger_than_1_counts_as_1() -> None:
    found = calibration(np.array([0]), np.array([[1 + 1e-6, 0]]))
    assert (found.confidence, found.images[-1], found.error) == (1, 1, 0)


# In the report


def test_the_results_have_the_error_of_each_seed_and_the_mean_over_them(
    of_seeds: DirectoryStore,
) -> None:
    (experiment, _) = results(read_run(of_seeds)).experiments
    errors = [one.test.ece for one in experiment.replicates if one.test]
    across = experiment.across_seeds.ece
    assert experiment.test is not None
    assert across is not None
    assert errors[0] == experiment.test.ece
    assert len(set(errors)) == len(errors) == 4
    assert across.mean == pytest.approx(np.mean(errors))
    assert across.sd == pytest.approx(np.std(errors, ddof=1))
    bins = experiment.test.reliability
    assert sum(bins.images) == experiment.test.images
    assert len(bins.images) == len(bins.confidence) == len(bins.accuracy) == BINS


@pytest.fixture(scope="module")
def of_seeds(tmp_path_factory: pytest.TempPathFactory) -> DirectoryStore:
    store = DirectoryStore(tmp_path_factory.mktemp("calibration"))
    fake_run.write_seeds_run(store, 200, ("augmented", "finetuned"))
    return store


LOOK = styles(["frozen"])["frozen"]
NOTHING = Calibration(math.nan, math.nan, math.nan, (0,) * BINS, (None,) * BINS, (None,) * BINS)


def test_the_diagram_has_a_point_for_each_bin_with_images_and_their_number() -> None:
    sure = np.array([[0.9, 0.1]] * 1200 + [[0.55, 0.45]] * 30)
    found = calibration(np.zeros(1230, np.int64), sure)
    figure = reliability("frozen", LOOK, [found, found])
    assert figure.name == "reliability_frozen"
    assert "55% sure, 100% right, 30 images; 90% sure, 100% right, 1,200 images." in figure.alt
    assert "Thin lines are other seeds." in figure.alt
    texts = {
        element.text
        for element in ElementTree.fromstring(figure.svg).iter()  # noqa: S314 - our own
        if element.tag.endswith("text")
    }
    assert {"frozen", "1,200", "Images in each bin", "Accuracy, %"} <= texts
    assert len(re.findall("stroke-opacity: 0.55", figure.inline)) == 1
    assert reliability("frozen", LOOK, [found, found]) == figure


@pytest.mark.filterwarnings("error")
def test_a_diagram_of_nothing_is_empty() -> None:
    figure = reliability("frozen", LOOK, [NOTHING])
    assert figure.alt == "Reliability of frozen: no bin holds an image."
