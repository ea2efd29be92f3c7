"""The convolution of small maps gives what the plain one gives, and so do its gradients."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcluster.training import small_maps
from tlcluster.training.small_maps import LARGEST_SIDE, convolve, replaces

SIDES = st.integers(1, LARGEST_SIDE + 2)


def random(seed: int, *shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def plain(maps: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(maps, kernel, strides=1, padding="SAME")


@given(st.integers(1, 5), SIDES, SIDES, st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_it_is_the_plain_convolution(
    n: int, height: int, width: int, inputs: int, outputs: int, seed: int
) -> None:
    maps = random(seed, n, height, width, inputs)
    kernel = random(seed + 1, 3, 3, inputs, outputs)
    found = convolve(maps, kernel)
    assert found.dtype == maps.dtype
    np.testing.assert_allclose(found, plain(maps, kernel), atol=1e-5)


def test_no_map_is_no_result() -> None:
    assert convolve(random(1, 0, 4, 4, 3), random(2, 3, 3, 3, 5)).shape == (0, 4, 4, 5)


def layer(**changes: object) -> keras.layers.Layer:
    made = keras.layers.Conv2D(**{"filters": 4, "kernel_size": 3, "padding": "same", **changes})
    made.build((None, 4, 4, 4))
    return made


def test_it_stands_in_for_a_plain_3_by_3_convolution() -> None:
    assert replaces(layer())
    assert replaces(layer(use_bias=False, activation="relu", padding="SAME"))


@pytest.mark.parametrize(
    "other",
    [
        {"kernel_size": 1},
        {"kernel_size": (3, 1)},
        {"kernel_size": 7},
        {"strides": 2},
        {"strides": (1, 2)},
        {"dilation_rate": 2},
        {"padding": "valid"},
        {"groups": 2},
        {"data_format": "channels_first"},
    ],
    ids=str,
)
def test_every_other_convolution_keeps_the_operation_of_keras(other: dict[str, object]) -> None:
    assert not replaces(layer(**other))


@pytest.mark.parametrize(
    "kind",
    [
        keras.layers.DepthwiseConv2D(3, padding="same"),
        keras.layers.SeparableConv2D(4, 3, padding="same"),
        keras.layers.Conv2DTranspose(4, 3, padding="same"),
        keras.layers.Dense(4),
    ],
    ids=lambda kind: type(kind).__name__,
)
def test_layers_of_other_kinds_keep_the_operation_of_keras(kind: keras.layers.Layer) -> None:
    kind.build((None, 4, 4, 4))
    assert not replaces(kind)


@pytest.mark.parametrize("side", range(1, LARGEST_SIDE + 1))
def test_its_gradients_are_those_of_the_plain_convolution(side: int) -> None:
    maps, kernel = random(1, 3, side, side, 8), random(2, 3, 3, 8, 4)
    weights = random(3, 3, side, side, 4)
    gradients = []
    for function in (convolve, plain):
        with tf.GradientTape() as tape:
            tape.watch([maps, kernel])
            value = tf.reduce_sum(function(maps, kernel) * weights)
        gradients.append(tape.gradient(value, [maps, kernel]))
    for found, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_meets_only_zeros_has_a_gradient_of_exactly_zero() -> None:
    """Adam makes a full step of whatever is left of a sum that should be zero."""
    maps = random(1, 6, 4, 4, 8) * tf.constant([1, 0, 1, 1, 0, 1, 0, 0], tf.float32)
    kernel = random(2, 3, 3, 8, 4)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        value = tf.reduce_sum(convolve(maps, kernel) ** 2)
    gradient = tape.gradient(value, kernel).numpy()
    np.testing.assert_array_equal(np.any(gradient, axis=(0, 1, 3)), [1, 0, 1, 1, 0, 1, 0, 0])


def test_rounding_is_as_good_as_that_of_the_plain_convolution() -> None:
    maps, kernel = random(1, 8, 4, 4, 512), random(2, 3, 3, 512, 16)
    wide = plain(tf.cast(maps, tf.float64), tf.cast(kernel, tf.float64))
    errors = [
        float(tf.reduce_max(tf.abs(tf.cast(function(maps, kernel), tf.float64) - wide)))
        for function in (convolve, plain)
    ]
    assert errors[0] < 3 * errors[1]


@pytest.mark.parametrize("side", [4, LARGEST_SIDE + 1])
def test_a_map_of_unknown_size_is_convolved_too(side: int) -> None:
    maps, kernel = random(1, 2, side, side, 3), random(2, 3, 3, 3, 5)
    graph = tf.function(
        convolve,
        input_signature=[
            tf.TensorSpec((None, None, None, 3), tf.float32),
            tf.TensorSpec((3, 3, 3, 5), tf.float32),
        ],
    )
    np.testing.assert_allclose(graph(maps, kernel), plain(maps, kernel), atol=1e-5)


def test_the_comparison_notices_a_place_that_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, kernel = random(1, 2, 4, 4, 3), random(2, 3, 3, 3, 5)
    places = list(tf.unstack(tf.reshape(kernel, (9, 3, 5))))
    monkeypatch.setattr(small_maps.tf, "unstack", lambda _: [*places[:8], places[0]])
    assert not np.allclose(convolve(maps, kernel), plain(maps, kernel), atol=1e-3)
