"""The loss of a training step."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tlcluster.training.step import cross_entropy

LOGITS = np.random.default_rng(1).normal(0, 5, (20, 7)).astype(np.float32)
LABELS = np.random.default_rng(2).integers(0, 7, 20)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothed_labels_give_the_loss_of_keras(smoothing: float) -> None:
    theirs = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=smoothing, reduction="none"
    )(tf.one_hot(LABELS, 7), LOGITS)
    ours = cross_entropy(tf.constant(LABELS), tf.constant(LOGITS), smoothing)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_without_smoothing_the_loss_is_the_plain_one_bit_for_bit() -> None:
    plain = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, LOGITS)
    np.testing.assert_array_equal(cross_entropy(LABELS, tf.constant(LOGITS), 0.0), plain)
