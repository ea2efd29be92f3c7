"""The training step: gradients, their sum over the workers, and several steps in one call."""

from collections.abc import Callable, Iterator

import tensorflow as tf

from tlcluster.experiments import AugmentationName
from tlcluster.training import augment
from tlcluster.training.collective import local, total
from tlcluster.training.optimizer import Fused
from tlcluster.training.state import StepSums

TrainingCall = Callable[[Iterator[tuple[tf.Tensor, ...]], int, bool], StepSums]
"""Batches, a number of steps, and whether this worker wants to stop → sums of those steps."""


def training_call(
    strategy: tf.distribute.Strategy,
    logits_of: Callable[..., tf.Tensor],
    variables: list[tf.Variable],
    optimizer: Fused,
    *,
    augment_seed: int | None,
    augmentation: AugmentationName,
    label_smoothing: float,
    mixes: bool,
) -> TrainingCall:
    """Several steps in one call of the graph: with short steps, Python would take most of the time.

    Args:
        strategy: sums gradients and results over the workers.
        logits_of: inputs, keys and `training` → logits; see `tlcluster.training.model.Models`.
        variables: what is trained.
        optimizer: built for these variables.
        augment_seed: augments the inputs with this seed, each in its view; None takes them
            as they are.
        augmentation: how they are augmented.
        label_smoothing: see `cross_entropy`.
        mixes: whether inputs are mixed; see `tlcluster.training.mixup`.

    Returns:
        A function whose batches are `tlcluster.training.data.dataset` elements, distributed.
        All workers call it together.
    """

    def step(
        inputs: tf.Tensor,
        labels: tf.Tensor,
        samples: tf.Tensor,
        epoch: tf.Tensor,
        view: tf.Tensor,
        global_rows: tf.Tensor,
        rate: tf.Tensor,
        partners: tf.Tensor,
        shares: tf.Tensor,
    ) -> tf.Tensor:
        if augment_seed is None:
            shown = tf.cast(inputs, tf.float32)
        else:
            how = augment.AUGMENTATIONS[augmentation]
            shown = augment.augment(inputs, how, seed=augment_seed, view=view, samples=samples)
        if mixes:
            own = tf.reshape(shares, (-1, 1, 1, 1))
            shown = own * shown + (1.0 - own) * tf.gather(shown, partners)
        keys = tf.stack([tf.fill(tf.shape(samples), epoch), samples], axis=1)
        with tf.GradientTape() as tape:
            logits = logits_of(shown, keys, training=True)
            losses = cross_entropy(labels, logits, label_smoothing)
            if mixes:
                others = cross_entropy(tf.gather(labels, partners), logits, label_smoothing)
                losses = shares * losses + (1.0 - shares) * others
            # The workers' gradients are summed. Divided by the rows of the global batch, not of
            # this worker's part, they add up to the gradient of the mean loss, however the batch
            # is split and however small the last one is.
            loss = tf.reduce_sum(losses) / tf.cast(global_rows, tf.float32)
        gradients = tape.gradient(loss, variables)
        with optimizer.at(rate):
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
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

    def named(batches: Iterator[tuple[tf.Tensor, ...]], steps: int, stop: bool) -> StepSums:
        sums = call(batches, tf.constant(steps), tf.constant(float(stop)))
        loss, correct, rows, stops = sums.numpy().tolist()
        return StepSums(loss, int(correct), int(rows), int(stops))

    return named


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor, smoothing: float) -> tf.Tensor:
    """The loss of each row.

    With smoothing ε and K classes, the target of the labelled class is 1 − ε + ε/K and that of each
    other class ε/K, as in Szegedy et al., "Rethinking the Inception Architecture for Computer
    Vision" (2016), section 7.

    Args:
        labels: int64 (n,).
        logits: float32 (n, classes).
        smoothing: ε, 0 to below 1.

    Returns:
        float32 (n,).
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if not smoothing:
        return losses
    spread = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=1)
    return (1.0 - smoothing) * losses + smoothing * spread
