"""BatchNorm over the global batch is Keras' synchronized BatchNorm, with one collective."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tlcluster.training.batch_norm import GlobalBatchNorm

SHAPES = [(25, 16), (9, 3, 2, 16)]


@pytest.fixture(autouse=True)
def fresh_keras() -> Iterator[None]:
    yield
    keras.backend.clear_session()


def normal(seed: int, shape: tuple[int, ...]) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(3, 5, shape), tf.float32)


def layers(shape: tuple[int, ...]) -> tuple[keras.layers.Layer, keras.layers.Layer]:
    """Keras' layer and ours, with the same weights."""
    theirs, ours = (keras.layers.BatchNormalization(synchronized=True) for _ in range(2))
    for layer in (theirs, ours):
        layer.build((None, *shape[1:]))
    values = [np.random.default_rng(n).uniform(1, 2, 16).astype(np.float32) for n in range(4)]
    theirs.set_weights(values)
    ours.set_weights(values)
    GlobalBatchNorm().replace_in(ours)
    return theirs, ours


@pytest.mark.parametrize("shape", SHAPES)
def test_a_training_pass_is_that_of_keras(shape: tuple[int, ...]) -> None:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    inputs, weights = normal(1, shape), normal(2, shape)
    found = []
    with strategy.scope():
        both = layers(shape)
    for layer in both:

        def step(x: tf.Tensor, layer: keras.layers.Layer = layer) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(x)
                outputs = layer(x, training=True)
                value = tf.reduce_sum(outputs**2 * weights)
            return [outputs, *tape.gradient(value, [x, layer.gamma, layer.beta])]

        run = tf.function(lambda step=step: strategy.run(step, args=(inputs,)))
        found.append([part.numpy() for part in run()] + layer.get_weights())
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("trainable", [True, False])
def test_an_inference_pass_is_keras_own_and_changes_nothing(trainable: bool) -> None:
    theirs, ours = layers(SHAPES[1])
    theirs.trainable = ours.trainable = trainable
    before = ours.get_weights()
    inputs = normal(1, SHAPES[1])
    # A layer that is not trainable runs in inference mode, in a call with training=True too.
    np.testing.assert_array_equal(
        ours(inputs, training=not trainable), theirs(inputs, training=False)
    )
    for weight, kept in zip(ours.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)


def test_rows_that_are_only_padding_do_not_count() -> None:
    _, ours = layers(SHAPES[0])
    norm = GlobalBatchNorm()
    norm.replace_in(ours)
    moving = ours.moving_mean.numpy()
    with norm.counting(tf.constant(0.0)):
        ours(normal(1, SHAPES[0]), training=True)
    # The mean of no rows is zero.
    np.testing.assert_allclose(ours.moving_mean, moving * ours.momentum, rtol=1e-6)
    ours(normal(1, SHAPES[0]), training=True)
    assert ours.moving_mean.numpy().mean() > (moving * ours.momentum**2).mean()


@pytest.mark.cluster
@pytest.mark.parametrize("cut", [4, 5, 7], ids=["4 and 3 rows", "5 and 2 rows", "7 rows and none"])
def test_two_workers_compute_what_one_computes_from_all_rows(
    cut: int, run_wave: Callable[[list[Any]], list[list[Any]]]
) -> None:
    rows = np.random.default_rng(1).normal(3, 5, (7, 2)).tolist()
    (alone,), both = run_wave([[{"rows": rows}], [{"rows": rows[:cut]}, {"rows": rows[cut:]}]])
    for part in ("outputs", "to_rows"):
        parts = [np.reshape(worker[part], (-1, 2)) for worker in both]
        np.testing.assert_allclose(np.concatenate(parts), alone[part], rtol=1e-4, atol=1e-4)
    for worker in both:
        np.testing.assert_allclose(worker["moving"], alone["moving"], rtol=1e-5)
    assert np.abs(alone["to_rows"]).max() > 0.1
