"""The frozen lower part of a base whose upper blocks are trained: its features and what is above.

A row of its features is the flattened map below the first trained block, followed by the means of
the channels of each tap below that block.
"""

import math
from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from tlcluster.backbones import LAST
from tlcluster.experiments import Experiment
from tlcluster.training.base import below

MOST_ROW_BYTES = 2**16
"""Of the features of an image: 6 GB for 90,000 images. An image of 32×32 pixels has 3 KB."""

LEAST_FLOP_PER_BYTE = 2000
"""Operations that a byte of features must save. A core needs about as long for 500 operations as to
write, read and check one byte; the disk and other workers need their share."""


def worth_keeping(row_bytes: int, flop: float) -> bool:
    """Whether features of the lower part of a base are kept, instead of computed in every step.

    Results are the same up to rounding.

    Args:
        row_bytes: of the features of an image.
        flop: operations that compute them.
    """
    return row_bytes <= MOST_ROW_BYTES and flop >= LEAST_FLOP_PER_BYTE * row_bytes


def lower_layers(trunk: keras.Model, experiment: Experiment) -> Sequence[keras.layers.Layer]:
    """The layers of the lower part whose features can be kept; none if there is no such part.

    Args:
        trunk: of `tlcluster.training.base.tapped`.
        experiment: decides where the part ends.
    """
    if experiment.feature_end in (LAST, None):
        return ()
    layers = below(trunk, experiment.trainable_from)
    return layers if any(layer.weights for layer in layers) else ()


def row_bytes(trunk: keras.Model, experiment: Experiment) -> int:
    """Bytes of the features of an image; 0 if there is no lower part."""
    layers = lower_layers(trunk, experiment)
    if not layers:
        return 0
    means = sum(one.shape[-1] for one in trunk.outputs[: _taps_below(experiment)])
    return 4 * (math.prod(layers[-1].output.shape[1:]) + means)


def is_kept(trunk: keras.Model, experiment: Experiment) -> bool:
    """Whether there is a lower part and its features are worth keeping."""
    layers = lower_layers(trunk, experiment)
    # The weights of a convolution are used once for each pixel of its output.
    flop = sum(2.0 * layer.count_params() * math.prod(layer.output.shape[1:3]) for layer in layers)
    return bool(layers) and worth_keeping(row_bytes(trunk, experiment), flop)


def cut(
    images: tf.Tensor, shown: tf.Tensor, trunk: keras.Model, experiment: Experiment
) -> tuple[keras.Model, keras.Model]:
    """The two parts of a base, with its layers and weights.

    Args:
        images: Keras input.
        shown: Keras tensor, the images as the base takes them.
        trunk: of `tlcluster.training.base.tapped`.
        experiment: one with a lower part.

    Returns:
        Images → features, float32 (n, features), and features → what the head gets, flattened,
        float32 (n, units).
    """
    end = lower_layers(trunk, experiment)[-1].output
    count = _taps_below(experiment)
    # Keras returns a list only of several maps.
    first, *maps = tf.nest.flatten(keras.Model(trunk.input, [end, *trunk.outputs[:count]])(shown))
    lower = keras.Model(images, _row([first, *map(_mean, maps)]))

    rows = keras.Input(lower.output_shape[1:], name="rows")
    size = math.prod(end.shape[1:])
    middle = keras.layers.Reshape(end.shape[1:])(rows[:, :size])
    above = tf.nest.flatten(keras.Model(end, trunk.outputs[count:])(middle))
    if experiment.taps != LAST:
        above = [rows[:, size:], *map(_mean, above)]
    return lower, keras.Model(rows, _row(above))


def _taps_below(experiment: Experiment) -> int:
    return len([tap for tap in experiment.feature_taps.split(",") if tap])


def _mean(one: tf.Tensor) -> tf.Tensor:
    return keras.layers.GlobalAveragePooling2D(dtype="float32")(one)


def _row(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """Keras tensors (n, …) side by side, float32 (n, numbers)."""
    flat = [keras.layers.Reshape((-1,), dtype="float32")(part) for part in parts]
    return keras.layers.Concatenate(dtype="float32")(flat) if len(flat) > 1 else flat[0]
