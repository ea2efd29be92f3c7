"""The training step: gradients, their sum over workers, and several steps in one call."""

from collections.abc import Callable, Iterator

import tensorflow as tf
import tf_keras as keras

from tlcluster.training import augment
from tlcluster.training.collective import local, total


def training_call(
    strategy: tf.distribute.Strategy,
    logits_of: Callable[..., tf.Tensor],
    variables: list[tf.Variable],
    optimizer: keras.optimizers.Optimizer,
    *,
    augment_seed: int | None,
) -> Callable[..., tf.Tensor]:
    """Several steps in one call of the graph, so that Python is not in the way of short ones.

    Args:
        logits_of: inputs, keys and `training` → logits; see `tlcluster.training.model.Models`.
        variables: what is trained.
        augment_seed: shows each image in its view, with this seed; None takes inputs as they are.

    Returns:
        A function of the batches (an iterator of `tlcluster.training.data.dataset` elements,
        distributed), the number of steps, and this worker's wish to stop, 0 or 1. It gives
        the sums over steps and workers of losses, right answers, rows and wishes: float64 (4,).
    """

    def step(
        inputs: tf.Tensor,
        labels: tf.Tensor,
        samples: tf.Tensor,
        epoch: tf.Tensor,
        view: tf.Tensor,
        global_rows: tf.Tensor,
    ) -> tf.Tensor:
        if augment_seed is None:
            shown = tf.cast(inputs, tf.float32)
        else:
            shown = augment.augment(inputs, seed=augment_seed, view=view, samples=samples)
        keys = tf.stack([tf.fill(tf.shape(samples), epoch), samples], axis=1)
        with tf.GradientTape() as tape:
            logits = logits_of(shown, keys, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            # Gradients of the workers are summed. Dividing by the rows of the global
            # batch, not of this worker's part, makes the sum its mean's gradient,
            # however the batch is split, the last partial one included.
            loss = tf.reduce_sum(losses) / tf.cast(global_rows, tf.float32)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        right = tf.argmax(logits, axis=1) == labels
        return tf.stack(
            [
                tf.reduce_sum(tf.cast(losses, tf.float64)),
                tf.reduce_sum(tf.cast(right, tf.float64)),
                tf.cast(tf.shape(labels)[0], tf.float64),
            ]
        )

    @tf.function
    def call(
        batches: Iterator[tuple[tf.Tensor, ...]], steps: tf.Tensor, stop: tf.Tensor
    ) -> tf.Tensor:
        sums = tf.zeros((3,), tf.float64)
        for _ in tf.range(steps):
            sums += local(strategy, strategy.run(step, args=next(batches)))
        return total(strategy, tf.concat([sums, [tf.cast(stop, tf.float64)]], axis=0))

    return call
