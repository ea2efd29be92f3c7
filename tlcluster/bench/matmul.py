"""The machine's float32 matrix product rate, by TensorFlow: a program for the benchmark."""

import time

import tensorflow as tf

from tlcluster.bench.clock import answer

SIZE = 2048
TIMES = 50
"""Some seconds: a machine that was idle or is shared does not reach its highest rate at once."""


def main() -> None:
    a = tf.random.stateless_normal((SIZE, SIZE), (1, 2))
    b = tf.random.stateless_normal((SIZE, SIZE), (3, 4))

    @tf.function
    def product() -> tf.Tensor:
        return tf.linalg.matmul(a, b)

    product()
    rates = []
    for _ in range(TIMES):
        start = time.perf_counter()
        product().numpy()
        rates.append(2 * SIZE**3 / (time.perf_counter() - start))
    answer(flop_per_second=rates)


if __name__ == "__main__":
    main()
