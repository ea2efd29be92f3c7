"""Datasets: the stream's batches in TensorFlow, unchanged, in order, a few ahead.

A feed gives them to all steps of a training, and raises the errors of the stream as they are.
"""

import itertools
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from tlcluster.dataset.order import training_batches
from tlcluster.dataset.shards import read_index
from tlcluster.dataset.stream import Batch, stream
from tlcluster.errors import StoreUnavailable, UserError
from tlcluster.storage.protocol import Store
from tlcluster.training.data import PREFETCH, DataStep, Feed, dataset, image_spec
from tlcluster.training.mixup import Mix, unmixed

IMAGES = image_spec((32, 32, 3))
FEATURES = tf.TensorSpec((None, 512), tf.float32)


def made(n: int, *, features: bool = False, epoch: int = 1) -> DataStep:
    generator = np.random.default_rng(n)
    inputs = (
        generator.normal(size=(n, 512)).astype(np.float32)
        if features
        else generator.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    )
    labels, samples = generator.integers(0, 10, n), generator.integers(0, 2**40, n)
    mix = Mix(generator.permutation(n), generator.random(n).astype(np.float32))
    batch = Batch(inputs, labels, samples, np.arange(n), 2 * n + 1)
    return epoch, epoch + 100, epoch / 8, mix, batch


@pytest.mark.parametrize("features", [False, True])
def test_batches_come_in_order_and_bit_for_bit(features: bool) -> None:
    batches = [made(n, features=features, epoch=1 + n % 3) for n in (5, 1, 0, 7, 128)]
    elements = list(dataset(lambda: iter(batches), FEATURES if features else IMAGES))
    assert len(elements) == len(batches)
    for element, (epoch, view, rate, mix, batch) in zip(elements, batches, strict=True):
        inputs, labels, samples, *numbers, partners, shares = (part.numpy() for part in element)
        for ours, theirs in zip(
            (inputs, labels, samples, partners, shares),
            (batch.inputs, batch.labels, batch.samples, *mix),
            strict=True,
        ):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
        assert numbers == [epoch, view, batch.global_rows, rate]


def test_one_graph_takes_batches_of_every_size() -> None:
    traced = []

    @tf.function
    def call(batches: Iterator[tuple[tf.Tensor, ...]], steps: tf.Tensor) -> tf.Tensor:
        traced.append(1)
        rows = tf.constant(0)
        for _ in tf.range(steps):
            rows += tf.shape(next(batches)[0])[0]
        return rows

    batches = iter(dataset(lambda: (made(n) for n in range(20)), IMAGES))
    assert call(batches, tf.constant(12)).numpy() == sum(range(12))
    assert call(batches, tf.constant(8)).numpy() == sum(range(12, 20))
    assert len(traced) == 1


def test_only_a_few_batches_are_made_ahead() -> None:
    made_so_far = threading.Semaphore(0)
    count = 0

    def endless() -> Iterator[DataStep]:
        nonlocal count
        for _ in itertools.count():
            count += 1
            made_so_far.release()
            yield made(2)

    batches = iter(dataset(endless, IMAGES))
    next(batches)
    for _ in range(PREFETCH):  # these are made without being asked for
        assert made_so_far.acquire(timeout=60)
    assert count <= PREFETCH + 3


def test_workers_read_their_own_rows_and_no_others_under_a_strategy(sample_store: Store) -> None:
    index, _ = read_index(sample_store)

    def rank_1_of_3() -> Iterator[DataStep]:
        rows = training_batches(
            index.shard_rows("train"), seed=5, epoch=1, global_batch=128, rank=1, world_size=3
        )
        for batch in stream(sample_store, index, "train", rows):
            yield 1, 0, 1e-3, unmixed(len(batch.labels)), batch

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    distributed = strategy.distribute_datasets_from_function(lambda _: dataset(rank_1_of_3, IMAGES))
    ours = [element[2].numpy() for element in distributed]
    np.testing.assert_array_equal(
        np.concatenate(ours), np.concatenate([batch.samples for *_, batch in rank_1_of_3()])
    )


@pytest.mark.parametrize("error", [StoreUnavailable("away"), UserError("x"), OSError(5, "y")])
def test_a_feed_raises_the_error_of_its_source(error: Exception) -> None:
    def broken() -> Iterator[DataStep]:
        yield made(2)
        raise error

    feed = Feed(tf.distribute.MultiWorkerMirroredStrategy(), broken, IMAGES)
    step = tf.function(lambda batches: next(batches)[1])
    with feed.own_errors():
        assert step(feed.iterator).shape == (2,)
    with pytest.raises(type(error)) as caught, feed.own_errors():
        step(feed.iterator)
    assert caught.value is error


def test_a_feed_knows_how_long_a_call_waited_for_it() -> None:
    def slow() -> Iterator[DataStep]:
        for number in range(4):
            if number != 1:
                time.sleep(0.2)
            yield made(2)

    feed = Feed(tf.distribute.MultiWorkerMirroredStrategy(), slow, IMAGES)
    step = tf.function(lambda batches: next(batches)[1])
    waited = []
    for _ in range(4):
        began = time.monotonic()
        step(feed.iterator)
        waited.append(feed.waited(1, began, time.monotonic()))
    assert max(waited[1], 0.0) < 0.1 < max(waited[2:])


def test_a_feed_passes_on_errors_that_are_not_of_its_source() -> None:
    feed = Feed(tf.distribute.MultiWorkerMirroredStrategy(), lambda: iter([made(2)]), IMAGES)
    with pytest.raises(tf.errors.InvalidArgumentError), feed.own_errors():
        tf.debugging.assert_equal(tf.constant(1), tf.constant(2))
