"""Whether the device of a worker works: TensorFlow sees it, and it calculates right."""

import numpy as np
import tensorflow as tf

from tlcluster.checkup.finding import Finding
from tlcluster.training.train import configure_tensorflow

SIDE = 256


def device_finding(threads: int, gpus: float) -> Finding:
    """Set TensorFlow up as for a training, and multiply two matrices.

    Args:
        threads: threads of one operation on the CPU.
        gpus: GPUs that this process has reserved, or a part of one.

    Raises:
        UserError: a training would refuse the device.
    """
    name = configure_tensorflow(threads)
    seen = tf.config.list_logical_devices("GPU")
    if gpus and not seen:
        return Finding(
            "device",
            "a GPU is reserved, none is seen",
            f"{gpus:g} GPU is reserved for a worker, and TensorFlow sees none: it would train on "
            "the CPU; install the CUDA libraries (tlcluster[gpu]), check the driver with "
            "nvidia-smi, or give --gpus-per-worker 0",
        )
    wrong = wrong_product(seen[0].name if gpus else "CPU:0")
    if wrong:
        return Finding(
            "device",
            f"{name}: wrong product",
            f"{name}: a matrix product {wrong}; have the device looked at, and leave the node out",
        )
    return Finding("device", f"{name}{_capability(gpus)}; product right")


def wrong_product(device: str) -> str:
    """What is wrong with a product that the device computes; empty if it is right.

    The entries are small integers, so that every precision that a device may choose is exact.
    """
    generator = np.random.default_rng(0)
    left, right = generator.integers(0, 4, (2, SIDE, SIDE)).astype(np.float32)
    try:
        with tf.device(device):
            found = tf.linalg.matmul(left, right).numpy()
    except (tf.errors.OpError, RuntimeError) as error:
        return f"failed ({' '.join(str(error).split())[:300]})"
    if not np.isfinite(found).all():
        return "has values that are not finite"
    return "" if np.array_equal(found, left @ right) else "is wrong"


def _capability(gpus: float) -> str:
    if not gpus:
        return ""
    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    found = details.get("compute_capability")
    return f", compute capability {'.'.join(map(str, found))}" if found else ""
