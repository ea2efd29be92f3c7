"""Whether the device of a worker works: TensorFlow sees it, and it calculates right."""

import numpy as np
import tensorflow as tf

from tlcluster.checkup.finding import Finding
from tlcluster.training.setup import configure_tensorflow, seen_gpus

SIDE = 256


def device_finding(gpus: float, threads: int, cache: str | None) -> Finding:
    """Set TensorFlow up as for a training, and multiply two matrices.

    Args:
        gpus, threads, cache: see `configure_tensorflow`.

    Raises:
        UserError: a training would refuse the device.
    """
    name = configure_tensorflow(gpus, threads, cache).name
    wrong = wrong_product("GPU:0" if gpus else "CPU:0")
    if wrong:
        return Finding(
            "device",
            f"{name}: wrong product",
            f"{name}: a matrix product {wrong}; have the device looked at, and leave the node out",
        )
    return Finding("device", f"{name}{_capability() if gpus else ''}; product right")


def wrong_product(device: str) -> str:
    """What is wrong with a product that the device computes; empty if it is right.

    The entries are small integers, so that every precision that a device may choose is exact.
    """
    generator = np.random.default_rng(0)
    left, right = generator.integers(0, 4, (2, SIDE, SIDE)).astype(np.float32)
    try:
        with tf.device(device):
            product = tf.linalg.matmul(left, right)
            found = product.numpy()
    except (tf.errors.OpError, RuntimeError) as error:
        return f"failed ({' '.join(str(error).split())[:300]})"
    # TensorFlow takes the CPU without a word if it cannot place an operation.
    if not product.device.endswith(device):
        return f"is computed on {product.device.rpartition('device:')[2]} instead of {device}"
    if not np.isfinite(found).all():
        return "has values that are not finite"
    return "" if np.array_equal(found, left @ right) else "is wrong"


def _capability() -> str:
    (gpu,) = seen_gpus()
    return f", compute capability {'.'.join(map(str, gpu.capability))}" if gpu.capability else ""
