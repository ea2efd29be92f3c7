"""Random numbers that depend only on their key: (seed, view, sample) gives the same everywhere.

With a stateful generator, each worker has its own sequence, and results change
with the number of workers. Here every number is a hash of its key, computed in
the TensorFlow graph, on any device and in any order.
"""

import tensorflow as tf

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9  # 2³² divided by the golden ratio: spreads the draws of one key apart


def uniform(seed: int, stream: int, view: tf.Tensor, samples: tf.Tensor, count: int) -> tf.Tensor:
    """Numbers uniform in [0, 1), the same for the same key.

    Args:
        seed: the run's seed.
        stream: separates independent uses (augmentation, dropout, …).
        view: int64, scalar or (n,).
        samples: int64 (n,), numbers of the samples in their split.
        count: draws per sample.

    Returns:
        float32 (n, count), in steps of 2⁻²⁴.
    """
    key = _mix(tf.constant((seed ^ (stream * _GOLDEN)) & _MASK, tf.int64))
    key = _mix(key ^ (view & _MASK))
    key = _mix(key ^ (samples & _MASK))
    key = _mix(key ^ tf.bitwise.right_shift(samples, 32))
    counters = tf.range(1, count + 1, dtype=tf.int64) * _GOLDEN
    bits = _mix((key[:, None] + counters[None, :]) & _MASK)
    return tf.cast(tf.bitwise.right_shift(bits, 8), tf.float32) * (1.0 / (1 << 24))


def _mix(x: tf.Tensor) -> tf.Tensor:
    """A 32-bit finaliser on int64 values in [0, 2³²): `lowbias32` of Chris Wellons'
    hash-prospector (2018, public domain). Products wrap; their low 32 bits are right."""
    x = x ^ tf.bitwise.right_shift(x, 16)
    x = (x * 0x7FEB352D) & _MASK
    x = x ^ tf.bitwise.right_shift(x, 15)
    x = (x * 0x846CA68B) & _MASK
    return x ^ tf.bitwise.right_shift(x, 16)
