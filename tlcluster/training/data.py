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
    batches: Callable[[], Iterator[tuple[int, int, Batch]]], spec: tf.TensorSpec
) -> tf.data.Dataset:
    """(epoch, view, batch) triples → a dataset for `tlcluster.training.step.training_call`.

    Elements: inputs as `spec` says; labels (n,) and samples (n,); epoch, view and rows of
    the global batch. All but the inputs are int64. n is this worker's part of the global
    batch and may be 0.
    """

    def elements() -> Iterator[tuple[object, ...]]:
        for epoch, view, batch in batches():
            yield batch.inputs, batch.labels, batch.samples, epoch, view, batch.global_rows

    many, one = tf.TensorSpec((None,), tf.int64), tf.TensorSpec((), tf.int64)
    options = tf.data.Options()
    # Each worker already reads only its own rows. With sharding it would read all of them.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    options.deterministic = True
    return (
        tf.data.Dataset.from_generator(elements, output_signature=(spec, many, many, one, one, one))
        .prefetch(PREFETCH)
        .with_options(options)
    )


class Feed:
    """A distributed iterator of `dataset` elements that raises the exceptions of its source."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        batches: Callable[[], Iterator[tuple[int, int, Batch]]],
        spec: tf.TensorSpec,
    ) -> None:
        """
        Args:
            strategy: distributes the batches.
            batches: see `dataset`; called once, in a thread of tf.data.
            spec: of the inputs.
        """
        self._error: Exception | None = None

        def watched() -> Iterator[tuple[int, int, Batch]]:
            try:
                yield from batches()
            except Exception as error:
                self._error = error
                raise

        self.iterator = iter(
            strategy.distribute_datasets_from_function(lambda _: dataset(watched, spec))
        )

    @contextlib.contextmanager
    def own_errors(self) -> Iterator[None]:
        """Raise what `batches` raised; tf.data passes on only the text of an exception."""
        try:
            yield
        except tf.errors.OpError:
            if self._error is not None:
                raise self._error from None
            raise
