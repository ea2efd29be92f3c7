"""A worker's batches as tf.data: NumPy up to here, TensorFlow from here on."""

import contextlib
from collections.abc import Callable, Iterator

import tensorflow as tf

from tlcluster.dataset.stream import Batch

PREFETCH = 4
"""Batches ready ahead of the step that takes them; 128 images are 384 KiB."""


def image_spec(shape: tuple[int, int, int]) -> tf.TensorSpec:
    """A batch of images, uint8 (n, *shape), with any n."""
    return tf.TensorSpec((None, *shape), tf.uint8)


def dataset(
    steps: Callable[[], Iterator[tuple[int, int, float, Batch]]], spec: tf.TensorSpec
) -> tf.data.Dataset:
    """(epoch, view, learning rate, batch) → a dataset for `tlcluster.training.step.training_call`.

    Elements: inputs as `spec` says; int64 labels (n,) and samples (n,); int64 epoch, view and rows
    of the global batch; float32 learning rate. n is this worker's part of the global batch and may
    be 0.
    """

    def elements() -> Iterator[tuple[object, ...]]:
        for epoch, view, rate, batch in steps():
            yield batch.inputs, batch.labels, batch.samples, epoch, view, batch.global_rows, rate

    many, one = tf.TensorSpec((None,), tf.int64), tf.TensorSpec((), tf.int64)
    signature = (spec, many, many, one, one, one, tf.TensorSpec((), tf.float32))
    options = tf.data.Options()
    # Each worker already reads only its own rows. With sharding it would read all of them.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    options.deterministic = True
    return (
        tf.data.Dataset.from_generator(elements, output_signature=signature)
        .prefetch(PREFETCH)
        .with_options(options)
    )


class Feed:
    """A distributed iterator of `dataset` elements that raises the exceptions of its source."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        steps: Callable[[], Iterator[tuple[int, int, float, Batch]]],
        spec: tf.TensorSpec,
    ) -> None:
        """
        Args:
            strategy: distributes the batches.
            steps: see `dataset`; called once, in a thread of tf.data.
            spec: of the inputs.
        """
        self._error: Exception | None = None

        def watched() -> Iterator[tuple[int, int, float, Batch]]:
            try:
                yield from steps()
            except Exception as error:
                self._error = error
                raise

        self.iterator = iter(
            strategy.distribute_datasets_from_function(lambda _: dataset(watched, spec))
        )

    @contextlib.contextmanager
    def own_errors(self) -> Iterator[None]:
        """Raise what `steps` raised; tf.data passes on only the text of an exception."""
        try:
            yield
        except tf.errors.OpError:
            if self._error is not None:
                raise self._error from None
            raise
