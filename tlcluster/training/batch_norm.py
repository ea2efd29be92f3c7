"""BatchNorm of a trained base over the global batch: results do not depend on the worker count.

tf_keras has `BatchNormalization(synchronized=True)`, which Keras Applications do not use. It needs
three collectives for each layer and step, and ResNet50 has 53 such layers. It would also count the
image that stands in for an empty batch. This module computes the same statistics with one
collective. The head keeps Keras' layer: this one rounds differently, and the results of the study's
`regularized` would change in the eighth digit.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
import tf_keras as keras


class GlobalBatchNorm:
    """The training pass of Keras' BatchNorm layers; their inference pass is Keras' own."""

    def __init__(self) -> None:
        self._counted: tf.Tensor | None = None

    def replace_in(self, layer: keras.layers.BatchNormalization) -> None:
        """Let a built layer use the statistics of the global batch when it is trained.

        The layer keeps its class, name and weights. If it is not trainable, it runs in inference
        mode, as in Keras.
        """
        layer.call = functools.partial(self._call, layer, layer.call)

    @contextlib.contextmanager
    def counting(self, counted: tf.Tensor) -> Iterator[None]:
        """Weight of this worker's rows in the statistics while the block is traced.

        Args:
            counted: float32 scalar; 1, or 0 if the rows are only padding.
        """
        self._counted = counted
        try:
            yield
        finally:
            self._counted = None

    def _call(
        self,
        layer: keras.layers.BatchNormalization,
        keras_call: Callable[..., tf.Tensor],
        inputs: tf.Tensor,
        training: Any = None,
    ) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        # Keras traces layers once with a symbolic `training`, to learn the shape of their output.
        if training is not True or not layer.trainable or context is None:
            return keras_call(inputs, training=training)
        wide = tf.cast(inputs, tf.float32)
        mean, variance = self._moments(wide, context)
        for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            moving.assign_sub((moving - value) * (1.0 - layer.momentum))
        outputs = tf.nn.batch_normalization(
            wide, mean, variance, layer.beta, layer.gamma, layer.epsilon
        )
        return tf.cast(outputs, layer.compute_dtype)

    def _moments(
        self, inputs: tf.Tensor, context: tf.distribute.ReplicaContext
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance of each channel over all workers, float32 (channels,)."""
        axes, channels = list(range(inputs.shape.rank - 1)), inputs.shape[-1]
        parts = [
            tf.reduce_sum(inputs, axes),
            tf.reduce_sum(tf.square(inputs), axes),
            tf.cast(tf.reshape(tf.size(inputs) // channels, (1,)), tf.float32),
        ]
        # One collective: on a network, its latency costs more than its content.
        own = tf.concat(parts, axis=0)
        if self._counted is not None:
            own *= self._counted
        total, squares, count = tf.split(
            context.all_reduce(tf.distribute.ReduceOp.SUM, own), [channels, channels, 1]
        )
        mean = tf.math.divide_no_nan(total, count)
        # Rounding can make the difference negative.
        return mean, tf.maximum(tf.math.divide_no_nan(squares, count) - tf.square(mean), 0.0)
