"""TensorFlow in this process, set up for the GPU that a worker reserved, or for the CPU."""

import contextlib
import ctypes
import importlib.metadata
import os
import socket
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
import tf_keras as keras

from tlcluster.errors import UserError
from tlcluster.paths import expanded
from tlcluster.storage.cache import default_folder
from tlcluster.training.devices import (
    BFLOAT16,
    Cuda,
    Gpu,
    device_fault,
    kernel_cache,
    precision_on,
)


class Device(NamedTuple):
    """What this process computes on."""

    name: str
    """For people."""
    precision: str
    """Of the base; see `tlcluster.training.devices`."""


def configure_tensorflow(gpus: float, threads: int, cache: str | None) -> Device:
    """Set TensorFlow up for this process. Call it before anything else uses TensorFlow.

    Args:
        gpus: GPUs that the worker reserved: 0, 1 or a part of one.
        threads: threads of one operation on the CPU; 0 lets TensorFlow choose.
        cache: the node's cache folder; None is the usual one.

    Raises:
        UserError: a GPU is reserved, and this process cannot compute on one.
    """
    if gpus:
        keep_kernels(cache)
        return _on_gpu(gpus)
    # Ray leaves the GPUs of a node visible to a worker that reserves none.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(max(2, threads))
    tf.config.experimental.enable_op_determinism()
    name = f"CPU, {threads or 'all'} thread{'s' if threads != 1 else ''}"
    return Device(name, precision_on(None))


def _on_gpu(reserved: float) -> Device:
    seen = seen_gpus()
    if fault := device_fault(reserved, seen, found_cuda()):
        raise UserError(f"{socket.gethostname()}: {fault}")
    (gpu,) = seen
    # Without this, the first worker on a GPU that is shared would take all of its memory.
    (physical,) = tf.config.list_physical_devices("GPU")
    tf.config.experimental.set_memory_growth(physical, True)
    precision = precision_on(gpu)
    if precision == BFLOAT16:
        # bfloat16 has float32's range: no loss scaling is needed.
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    tf.config.optimizer.set_jit("autoclustering")
    return Device(gpu.name, precision)


def seen_gpus() -> tuple[Gpu, ...]:
    """The GPUs that TensorFlow sees in this process."""
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return tuple(
        Gpu(str(one.get("device_name", "GPU")), one.get("compute_capability")) for one in details
    )


def found_cuda() -> Cuda:
    """What this process has of CUDA."""
    return Cuda(
        tensorflow=tf.test.is_built_with_cuda(),
        driver=_loads("libcuda.so.1"),
        libraries=_installed("nvidia-cudnn-cu12") or _loads("libcudnn.so.9"),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
    )


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def keep_kernels(cache: str | None) -> None:
    """Let CUDA keep what it compiles in the node's cache folder, if that can be written.

    The driver loads what it finds there, so a folder of another account is left alone.
    """
    with contextlib.suppress(OSError, RuntimeError, UserError):
        variables = kernel_cache(os.environ, expanded(cache) if cache else default_folder())
        for folder in map(Path, variables.values()):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.lstat()
            if status.st_uid != os.getuid() or status.st_mode & 0o022:
                return
        os.environ.update(variables)
