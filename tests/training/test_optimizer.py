"""Adam in one operation is Keras' Adam."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tlcluster.training.optimizer import FusedAdam

SHAPES = ((3, 3, 4, 5), (5,), ())
STEPS = 20


def gradients() -> Iterator[list[tf.Tensor]]:
    """Of some steps: large ones, small ones, and some that are zero."""
    generator = np.random.default_rng(1)
    for step in range(STEPS):
        scale = 10.0 ** (step % 7 - 5)
        yield [
            tf.constant(scale * generator.normal(size=shape) * (step % 3 > 0), tf.float32)
            for shape in SHAPES
        ]


def trained(optimizer: keras.optimizers.Optimizer) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Variables and the optimizer's own after the steps, in a graph and under the strategy."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    generator = np.random.default_rng(2)
    with strategy.scope():
        initial = [generator.normal(size=shape) for shape in SHAPES]
        variables = [tf.Variable(tf.constant(value, tf.float32)) for value in initial]
        optimizer.build(variables)

    @tf.function
    def step(values: list[tf.Tensor]) -> None:
        strategy.run(lambda v: optimizer.apply_gradients(zip(v, variables, strict=True)), (values,))

    for values in gradients():
        step(values)
    return [v.numpy() for v in variables], [v.numpy() for v in optimizer.variables]


def test_variables_and_moments_are_those_of_keras_adam() -> None:
    ours, theirs = trained(FusedAdam(1e-3)), trained(keras.optimizers.Adam(1e-3))
    for found, expected in zip(ours, theirs, strict=True):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            # The operation takes 1 − β₂ in float32, which is 1.3e-5 of it off.
            np.testing.assert_allclose(one, other, rtol=3e-5, atol=1e-7)


def test_the_comparison_notices_another_rate() -> None:
    (ours, _), (theirs, _) = trained(FusedAdam(1e-3)), trained(keras.optimizers.Adam(1.1e-3))
    assert not np.allclose(ours[0], theirs[0], rtol=3e-5, atol=1e-7)
