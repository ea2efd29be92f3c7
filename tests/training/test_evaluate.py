"""Evaluation: the numbers that NumPy and SciPy give, every image once, in index order."""

from collections.abc import Iterator

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
import tf_keras as keras
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcluster.dataset.order import evaluation_batches
from tlcluster.dataset.shards import read_index
from tlcluster.dataset.stream import Batch, stream
from tlcluster.storage.protocol import Store
from tlcluster.training.data import image_spec
from tlcluster.training.evaluate import Evaluator, scores, softmax
from tlcluster.training.inputs import IMAGE_BATCH
from tlcluster.training.state import Scores


@st.composite
def some_logits(draw: st.DrawFn) -> np.ndarray:
    """float32 (n, classes) from gentle to so large that a plain exponential overflows."""
    rows, classes = draw(st.integers(0, 40)), draw(st.integers(1, 12))
    scale = draw(st.sampled_from([0.1, 3.0, 100.0, 1e4]))
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    return generator.normal(scale=scale, size=(rows, classes)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(logits=some_logits())
def test_probabilities_are_those_of_scipy(logits: np.ndarray) -> None:
    ours = softmax(logits)
    assert ours.dtype == np.float32
    assert ours.shape == logits.shape
    exact = scipy.special.softmax(logits.astype(np.float64), axis=1)
    np.testing.assert_allclose(ours, exact, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(ours.sum(axis=1), 1, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(logits=some_logits(), seed=st.integers(0, 999))
def test_scores_are_those_of_scipy(logits: np.ndarray, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, logits.shape[1], len(logits))
    ours = scores(logits, labels)
    wide = scipy.special.log_softmax(logits.astype(np.float64), axis=1)
    assert ours.loss == pytest.approx(-wide[np.arange(len(labels)), labels].sum(), rel=1e-9)
    assert ours.correct == (logits.argmax(axis=1) == labels).sum()
    assert ours.rows == len(labels)


def test_the_loss_is_the_one_that_training_minimises() -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(scale=3, size=(500, 10)).astype(np.float32)
    labels = generator.integers(0, 10, 500)
    theirs = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits).numpy()
    assert scores(logits, labels).loss == pytest.approx(theirs.astype(np.float64).sum(), rel=1e-6)


def test_ties_go_to_the_first_class() -> None:
    logits = np.array([[1, 2, 2], [0, 0, 0]], np.float32)
    assert scores(logits, np.array([1, 0])).correct == 2
    assert scores(logits, np.array([2, 2])).correct == 0


def test_no_image_counts_nothing() -> None:
    assert scores(np.zeros((0, 0), np.float32), np.zeros(0, np.int64)) == Scores(0.0, 0, 0)
    assert softmax(np.zeros((0, 10), np.float32)).shape == (0, 10)


def test_scores_of_parts_add_up_to_those_of_the_whole() -> None:
    generator = np.random.default_rng(2)
    logits = generator.normal(size=(1000, 10)).astype(np.float32)
    labels = generator.integers(0, 10, 1000)
    whole = scores(logits, labels)
    parts = [
        scores(logits[a:b], labels[a:b]) for a, b in [(0, 0), (0, 333), (333, 999), (999, 1000)]
    ]
    assert sum(part.loss for part in parts) == pytest.approx(whole.loss, rel=1e-12)
    assert sum(part.correct for part in parts) == whole.correct
    assert sum(part.rows for part in parts) == whole.rows


# With a model and a split. That workers' parts join is for two real ones to show, in test_train.


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Linear on a pixel of each image, with BatchNorm that would show training mode."""
    keras.utils.set_random_seed(1)
    images, keys = keras.Input((32, 32, 3)), keras.Input((2,), dtype=tf.int64)
    x = keras.layers.Flatten()(images[:, :4, :4])
    x = keras.layers.BatchNormalization()(x / 255)
    return keras.Model([images, keys], keras.layers.Dense(10)(x))


@pytest.fixture(scope="module")
def evaluator(model: keras.Model) -> Evaluator:
    def logits_of(inputs: tf.Tensor, keys: tf.Tensor, *, training: bool) -> tf.Tensor:
        return model([inputs, keys], training=training)

    return Evaluator(
        tf.distribute.MultiWorkerMirroredStrategy(), logits_of, image_spec((32, 32, 3))
    )


def split_data(store: Store, split: str, batch: int = IMAGE_BATCH) -> Iterator[Batch]:
    index, _ = read_index(store)
    rows = evaluation_batches(index.shard_rows(split), batch=batch, rank=0, world_size=1)
    return stream(store, index, split, rows)


@pytest.fixture(scope="module")
def whole(sample_store: Store) -> Batch:
    """The test split as one batch."""
    (batch,) = split_data(sample_store, "test", 1000)
    return batch


def expected_logits(model: keras.Model, whole: Batch) -> np.ndarray:
    images = tf.constant(whole.inputs, tf.float32)
    return model([images, tf.zeros((len(whole.inputs), 2), tf.int64)], training=False).numpy()


def test_predictions_are_those_of_the_model_in_index_order(
    evaluator: Evaluator, model: keras.Model, whole: Batch, sample_store: Store
) -> None:
    ours = evaluator.predictions(split_data(sample_store, "test"), 10)
    assert ours.dtype == np.float32
    expected = scipy.special.softmax(expected_logits(model, whole).astype(np.float64), axis=1)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("batch", [7, 256, 1000])
def test_scores_of_a_split_do_not_depend_on_the_size_of_batches(
    evaluator: Evaluator, model: keras.Model, whole: Batch, sample_store: Store, batch: int
) -> None:
    ours = evaluator.scores(split_data(sample_store, "test", batch))
    expected = scores(expected_logits(model, whole), whole.labels)
    assert ours.rows == 1000
    assert ours.correct == expected.correct
    assert ours.loss == pytest.approx(expected.loss, rel=1e-6)


def test_a_worker_without_images_takes_part(evaluator: Evaluator) -> None:
    assert evaluator.scores(iter(())) == Scores(0.0, 0, 0)
    assert evaluator.predictions(iter(()), 10).shape == (0, 10)
