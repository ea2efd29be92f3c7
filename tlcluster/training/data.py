"""A worker's batches as tf.data: NumPy from the stream, TensorFlow from here on."""

from collections.abc import Callable, Iterator

import tensorflow as tf

from tlcluster.cinic10 import IMAGE_SHAPE
from tlcluster.dataset.stream import Batch
from tlcluster.experiments import BASE_FEATURES

PREFETCH = 4
"""Batches ready ahead of the step that takes them; 128 images are 384 KiB."""


def inputs_spec(*, features: bool) -> tf.TensorSpec:
    """What a model is given: uint8 images (n, 32, 32, 3), or float32 (n, BASE_FEATURES)."""
    if features:
        return tf.TensorSpec((None, BASE_FEATURES), tf.float32)
    return tf.TensorSpec((None, *IMAGE_SHAPE), tf.uint8)


def dataset(
    batches: Callable[[], Iterator[tuple[int, int, Batch]]], *, features: bool
) -> tf.data.Dataset:
    """(epoch, view, batch) triples → a dataset for `tlcluster.training.step.training_call`.

    Elements: inputs (see `inputs_spec`), labels (n,), samples (n,), epoch, view and rows of the
    global batch, which are int64. n is this worker's part of the global batch and may be 0.
    """

    def elements() -> Iterator[tuple[object, ...]]:
        for epoch, view, batch in batches():
            yield batch.inputs, batch.labels, batch.samples, epoch, view, batch.global_rows

    many, one = tf.TensorSpec((None,), tf.int64), tf.TensorSpec((), tf.int64)
    signature = (inputs_spec(features=features), many, many, one, one, one)
    options = tf.data.Options()
    # Every worker reads its own rows already; sharding again would make it read all of them.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    options.deterministic = True
    return (
        tf.data.Dataset.from_generator(elements, output_signature=signature)
        .prefetch(PREFETCH)
        .with_options(options)
    )
