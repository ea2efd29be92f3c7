"""What workers exchange through TensorFlow, besides gradients.

A worker drives one device, so under MultiWorkerMirroredStrategy each worker
holds one replica of each variable.
"""

import numpy as np
import tensorflow as tf


def local(strategy: tf.distribute.Strategy, value: tf.Tensor | tf.Variable) -> tf.Tensor:
    """This worker's copy of a distributed value. Reading the whole value would be a collective."""
    return strategy.experimental_local_results(value)[0]


def total(strategy: tf.distribute.Strategy, value: tf.Tensor) -> tf.Tensor:
    """Sum of every worker's `value`; same shape and dtype. All workers call it together."""
    return strategy.reduce("SUM", strategy.run(tf.identity, args=(value,)), axis=None)


def joined(strategy: tf.distribute.Strategy, value: tf.Tensor) -> tf.Tensor:
    """Every worker's `value`, joined along the first axis by rank. All workers call it together."""
    values = strategy.experimental_distribute_values_from_function(lambda _: value)
    return strategy.gather(values, axis=0)


def joined_lines(strategy: tf.distribute.Strategy, line: str) -> list[str]:
    """Every worker's line, by rank. All workers call it together."""
    # Collectives take only numbers, and no uint8.
    numbers = np.frombuffer(f"{line}\n".encode(), np.uint8).astype(np.int32)
    every = joined(strategy, tf.constant(numbers)).numpy()
    return every.astype(np.uint8).tobytes().decode().splitlines()
