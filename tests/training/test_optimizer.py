"""Optimizers of one operation are those of Keras, with the same decay, limits and averages."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tlcluster.training.optimizer import OPTIMIZERS, Fused, FusedAdam, FusedNesterov, decays

SHAPES = ((3, 3, 4, 5), (5,), ())
STEPS = 20


def gradients() -> Iterator[list[tf.Tensor]]:
    """The gradients of each step: large ones, small ones, and some that are zero."""
    generator = np.random.default_rng(1)
    for step in range(STEPS):
        scale = 10.0 ** (step % 7 - 5)
        yield [
            tf.constant(scale * generator.normal(size=shape) * (step % 3 > 0), tf.float32)
            for shape in SHAPES
        ]


def trained(optimizer: keras.optimizers.Optimizer) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The variables and those of the optimizer after the steps, in a graph and a strategy."""
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


def adamw(weight_decay: float) -> keras.optimizers.Optimizer:
    """Keras' AdamW, told not to decay vectors and scalars."""
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=weight_decay)
    build = optimizer.build

    def built(variables: list[tf.Variable]) -> None:
        if not getattr(optimizer, "_built", False):  # every step builds it again
            optimizer.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
        build(variables)

    optimizer.build = built
    return optimizer


def assert_alike(
    one: tuple[list[np.ndarray], list[np.ndarray]],
    other: tuple[list[np.ndarray], list[np.ndarray]],
) -> None:
    for found, expected in zip(one, other, strict=True):
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            # The operation computes 1 - β₂ in float32, which is off by 1.3e-5.
            np.testing.assert_allclose(ours, theirs, rtol=3e-5, atol=1e-7)


def test_variables_and_moments_are_those_of_keras_adam() -> None:
    assert_alike(trained(FusedAdam(1e-3)), trained(keras.optimizers.Adam(1e-3)))


@pytest.mark.parametrize("weight_decay", [1e-2, 10.0])
def test_variables_and_moments_are_those_of_keras_adamw(weight_decay: float) -> None:
    assert_alike(trained(FusedAdam(1e-3, weight_decay)), trained(adamw(weight_decay)))


@pytest.mark.parametrize(
    "other",
    [
        lambda: keras.optimizers.Adam(1.1e-3),
        lambda: keras.optimizers.AdamW(1e-3, 1e-2),
        lambda: keras.optimizers.Adam(1e-3, global_clipnorm=0.01),
    ],
    ids=["rate", "weight decay", "clipped"],
)
def test_the_comparison_notices(other: Callable[[], keras.optimizers.Optimizer]) -> None:
    (ours, _), (theirs, _) = trained(FusedAdam(1e-3)), trained(other())
    assert not np.allclose(ours[0], theirs[0], rtol=3e-5, atol=1e-7)


def test_gradients_are_clipped_by_their_common_norm_as_by_keras() -> None:
    theirs = keras.optimizers.Adam(1e-3, global_clipnorm=0.01)
    assert_alike(trained(FusedAdam(1e-3, clip_norm=0.01)), trained(theirs))


def test_a_step_at_another_rate_is_that_of_an_optimizer_with_this_rate() -> None:
    class At(FusedAdam):
        def apply_gradients(self, *args: object, **kwargs: object) -> tf.Tensor:
            with self.at(tf.constant(1e-3)):
                return super().apply_gradients(*args, **kwargs)

    at, plain = At(0.5, 1e-2), FusedAdam(1e-3, 1e-2)
    for found, expected in zip(trained(at)[0], trained(plain)[0], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_variables_and_momentum_are_those_of_keras_sgd_with_nesterov() -> None:
    theirs = keras.optimizers.SGD(1e-3, momentum=0.9, nesterov=True)
    assert_alike(trained(FusedNesterov(1e-3)), trained(theirs))


def test_sgd_decays_beside_its_step() -> None:
    """Without gradients, each step takes the same share of every kernel and of nothing else."""
    optimizer = FusedNesterov(0.5, 0.1)
    variables = [tf.Variable(tf.ones(shape)) for shape in SHAPES]
    optimizer.build(variables)
    for _ in range(STEPS):
        optimizer.apply_gradients([(tf.zeros(v.shape), v) for v in variables])
    for variable in variables:
        left = 0.95**STEPS if decays(variable) else 1.0
        np.testing.assert_allclose(variable, np.full(variable.shape, left), rtol=1e-5)


@pytest.mark.parametrize("kind", OPTIMIZERS.values())
def test_variables_that_are_slowed_down_are_trained_at_their_share_of_the_rate(
    kind: type[Fused],
) -> None:
    class Slow(kind):  # type: ignore[misc, valid-type]
        def build(self, variables: list[tf.Variable]) -> None:
            super().build(variables)
            self.slow_down(variables[1:2], 0.1)

    slow, fast, tenth = (
        trained(one)[0] for one in (Slow(1e-2, 0.1), kind(1e-2, 0.1), kind(1e-3, 0.1))
    )
    np.testing.assert_array_equal(slow[0], fast[0])
    np.testing.assert_allclose(slow[1], tenth[1], rtol=1e-6)
    np.testing.assert_array_equal(slow[2], fast[2])


@pytest.mark.parametrize("kind", OPTIMIZERS.values())
def test_the_average_follows_the_variables_and_changes_nothing_about_them(
    kind: type[Fused],
) -> None:
    averaging, plain = kind(1e-2, 0.1, average=0.9), kind(1e-2, 0.1)
    (with_average, state), (without, _) = trained(averaging), trained(plain)
    for ours, theirs in zip(with_average, without, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # The averages are part of what a checkpoint holds, after all else.
    for kept, average in zip(state[-3:], averaging.averages, strict=True):
        np.testing.assert_array_equal(kept, average)

    variable = tf.Variable([[4.0]])
    optimizer = kind(0.1, average=0.25)
    optimizer.build([variable])
    expected = 4.0
    for step in range(6):
        optimizer.apply_gradients([(tf.constant([[1.0]]), variable)])
        kept_share = min(0.25, (1 + step) / (10 + step))
        expected = kept_share * expected + (1 - kept_share) * float(variable[0, 0])
        assert float(optimizer.averages[0][0, 0]) == pytest.approx(expected, rel=1e-5)


def test_without_weight_decay_the_graph_is_that_of_adam_alone() -> None:
    def operations(optimizer: FusedAdam) -> list[str]:
        variable = tf.Variable([[1.0, 2.0]])
        optimizer.build([variable])
        step = tf.function(lambda v: optimizer.apply_gradients([(v, variable)]))
        graph = step.get_concrete_function(tf.constant([[1.0, 1.0]])).graph
        return sorted(operation.type for operation in graph.get_operations())

    plain = operations(FusedAdam(1e-3))
    assert operations(FusedAdam(1e-3, 0.0)) == plain
    assert operations(FusedAdam(1e-3, 1e-2)) != plain
    assert "AssignSubVariableOp" not in plain


def test_kernels_decay_and_biases_and_batch_norm_do_not() -> None:
    model = keras.Sequential(
        [
            keras.layers.Conv2D(4, 3, input_shape=(8, 8, 3)),
            keras.layers.BatchNormalization(),
            keras.layers.DepthwiseConv2D(3),
            keras.layers.Flatten(),
            keras.layers.Dense(5),
        ]
    )
    names = {v.name.rpartition("/")[2]: decays(v) for v in model.trainable_variables}
    assert names == {
        "kernel:0": True,
        "depthwise_kernel:0": True,
        "bias:0": False,
        "gamma:0": False,
        "beta:0": False,
    }
