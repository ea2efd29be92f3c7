"""A worker's batches as tf.data: NumPy up to here, TensorFlow from here on."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator

import tensorflow as tf

from tlcluster.dataset.stream import Batch
from tlcluster.training.mixup import Mix
from tlcluster.training.waiting import waited

DataStep = tuple[int, int, float, Mix, Batch]
"""Epoch, view, learning rate, how rows are mixed, and the rows."""

PREFETCH = 4
"""Batches ready ahead of the step that takes them; 128 images are 384 KiB."""


def image_spec(shape: tuple[int, int, int]) -> tf.TensorSpec:
    """A batch of images, uint8 (n, *shape), with any n."""
    return tf.TensorSpec((None, *shape), tf.uint8)


def dataset(steps: Callable[[], Iterator[DataStep]], spec: tf.TensorSpec) -> tf.data.Dataset:
    """Steps of a training → a dataset for `tlcluster.training.step.training_call`.

    Elements: inputs as `spec` says; int64 labels (n,) and samples (n,); int64 epoch, view and rows
    of the global batch; float32 learning rate; int64 partners (n,) and float32 shares (n,) of
    `Mix`. n is this worker's part of the global batch and may be 0.
    """

    def elements() -> Iterator[tuple[object, ...]]:
        for epoch, view, rate, mix, batch in steps():
            rows = (batch.inputs, batch.labels, batch.samples)
            yield (*rows, epoch, view, batch.global_rows, rate, *mix)

    many, one = tf.TensorSpec((None,), tf.int64), tf.TensorSpec((), tf.int64)
    signature = (
        *(spec, many, many, one, one, one, tf.TensorSpec((), tf.float32)),
        *(many, tf.TensorSpec((None,), tf.float32)),
    )
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
        steps: Callable[[], Iterator[DataStep]],
        spec: tf.TensorSpec,
    ) -> None:
        """
        Args:
            strategy: distributes the batches.
            steps: see `dataset`; called once, in a thread of tf.data.
            spec: of the inputs.
        """
        self._error: Exception | None = None
        self._came: deque[float] = deque()
        """When each batch came that no call is known to have taken."""

        def watched() -> Iterator[DataStep]:
            try:
                for step in steps():
                    self._came.append(time.monotonic())
                    yield step
            except Exception as error:
                self._error = error
                raise

        self.iterator = iter(
            strategy.distribute_datasets_from_function(lambda _: dataset(watched, spec))
        )

    def waited(self, steps: int, began: float, ended: float) -> float:
        """Seconds in which a call of the graph waited for its batches.

        To be called after each call, with its number of steps.

        Args:
            steps: of the call, each of which took a batch.
            began, ended: when the call did, in seconds of `time.monotonic`.
        """
        return waited([self._came.popleft() for _ in range(steps)], began, ended)

    @contextlib.contextmanager
    def own_errors(self) -> Iterator[None]:
        """Raise what `steps` raised; tf.data passes on only the text of an exception."""
        try:
            yield
        except tf.errors.OpError:
            if self._error is not None:
                raise self._error from None
            raise
