"""What a worker computes on: the GPU that it reserved, or the CPU. Pure functions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

FLOAT32, BFLOAT16 = "float32", "bfloat16"
"""Precisions that a base can compute in. Its weights are float32 in both."""

OLDEST, TOO_NEW = (6, 0), (10, 0)
"""The compute capabilities that TensorFlow 2.21 works on: from `OLDEST` up to below `TOO_NEW`. Its
wheels hold kernels for 6.0, 7.0, 8.0, 8.9 and 9.0, and XLA aborts the process on 10.0 and above."""

BFLOAT16_FROM = (8, 0)
"""The lowest compute capability whose matrix units compute in bfloat16."""

CPU_INSTEAD = "train on CPUs with --gpus-per-worker 0"

Implementation = Literal["NCCL", "RING"]


class Gpu(NamedTuple):
    """A GPU that TensorFlow sees."""

    name: str
    capability: tuple[int, int] | None
    """Compute capability (major, minor); None if TensorFlow does not say."""


class Cuda(NamedTuple):
    """What a process has of CUDA. It explains why TensorFlow sees no GPU."""

    tensorflow: bool
    """Whether TensorFlow was built with CUDA."""
    driver: bool
    """Whether the driver's library, `libcuda.so.1`, can be loaded."""
    libraries: bool
    """Whether cuDNN can be loaded or is installed as a wheel."""
    visible: str | None
    """Value of CUDA_VISIBLE_DEVICES; None if it is not set."""


def device_fault(reserved: float, seen: Sequence[Gpu], cuda: Cuda) -> str | None:
    """Why a worker cannot compute on what it reserved, in one line; None if it can.

    Args:
        reserved: GPUs that the worker reserved: 0, 1 or a part of one.
        seen: the GPUs that TensorFlow sees in the worker's process.
        cuda: what the process has of CUDA.
    """
    if not reserved:
        return None
    beginning = f"reserved {reserved:g} GPU, TensorFlow sees"
    if not seen:
        return f"{beginning} none: {_unseen(cuda)}; or {CPU_INSTEAD}"
    if len(seen) > 1:
        return (
            f"{beginning} {len(seen)}, and a worker uses one: Ray did not choose it for the "
            f"worker (CUDA_VISIBLE_DEVICES is {_shown(cuda.visible)}); unset "
            "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES and "
            "TRAIN_ENABLE_SHARE_CUDA_VISIBLE_DEVICES where Ray starts, "
            f"or {CPU_INSTEAD}"
        )
    (gpu,) = seen
    if gpu.capability is None or OLDEST <= gpu.capability < TOO_NEW:
        return None
    return (
        f"{beginning} {gpu.name[:100]} of compute capability {_version(gpu.capability)}, and "
        f"TensorFlow 2.21 works on {_version(OLDEST)} up to below {_version(TOO_NEW)}; use nodes "
        f"with other GPUs, or {CPU_INSTEAD}"
    )


def _unseen(cuda: Cuda) -> str:
    """Why TensorFlow sees no GPU, and the way out."""
    if not cuda.tensorflow:
        return (
            "this TensorFlow was built without CUDA; install the build with CUDA on every node, "
            "with `make env GPU=1` or `pip install tlcluster[gpu]`"
        )
    if not cuda.driver:
        return (
            "the driver's libcuda.so.1 was not found; install NVIDIA's driver on the node, in a "
            "pod set runtimeClassName, or name the folder of the library in LD_LIBRARY_PATH "
            "(GKE: /usr/local/nvidia/lib64)"
        )
    if not cuda.libraries:
        return (
            "CUDA's libraries are not installed; run `make env GPU=1` or "
            "`pip install tlcluster[gpu]` on every node, or load the site's modules of CUDA 12 and "
            "cuDNN 9 before Ray starts"
        )
    return (
        f"CUDA_VISIBLE_DEVICES is {_shown(cuda.visible)}; see what "
        "`python -c 'import tensorflow as tf; tf.config.list_logical_devices()'` prints on the node"
    )


def _shown(visible: str | None) -> str:
    return "not set" if visible is None else f"'{visible[:100]}'"


def _version(capability: tuple[int, int]) -> str:
    return "{}.{}".format(*capability)


def precision_on(gpu: Gpu | None) -> str:
    """The precision that a base computes in; `gpu` is None for the CPU."""
    if gpu is None or gpu.capability is None or gpu.capability < BFLOAT16_FROM:
        return FLOAT32
    return BFLOAT16


def possible_precisions(reserved: float) -> tuple[str, ...]:
    """The precisions that a worker may turn out to compute in, by the GPUs that it reserves.

    The driver does not know which GPU a worker gets.
    """
    return (FLOAT32, BFLOAT16) if reserved else (FLOAT32,)


def collective_implementation(reserved: float) -> Implementation:
    """How the workers of an experiment add up gradients.

    NCCL refuses two workers on one GPU, so it is only for workers that reserve more than half of
    one. On its own, TensorFlow 2.21 takes RING, also on GPUs.
    """
    return "NCCL" if reserved > 0.5 else "RING"


def around_proxy(environment: Mapping[str, str], workers: Sequence[str]) -> dict[str, str]:
    """Variables with which gRPC connects to other workers directly.

    gRPC sends all connections through the proxy that `grpc_proxy`, `https_proxy` or `http_proxy`
    names, except to the hosts in `no_grpc_proxy`, or in `no_proxy` if that is not set.

    Args:
        environment: of the process.
        workers: `host:port` of each worker; an IPv6 address is in brackets.
    """
    name = "no_grpc_proxy"
    known = environment.get(name, environment.get("no_proxy", "")).split(",")
    hosts = [worker.rpartition(":")[0].strip("[]") for worker in workers]
    return {name: ",".join(dict.fromkeys(filter(None, (*known, *hosts))))}


def kernel_cache(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Variables with which CUDA keeps the kernels that it compiles.

    TensorFlow's wheels hold code for compute capability 9.0 that the driver compiles at the first
    use, which takes minutes. By default the result is in the home directory, which a container
    loses and a quota may limit.

    Args:
        environment: of the process. What it already says about this cache is kept.
        folder: the node's cache folder.
    """
    if "CUDA_CACHE_PATH" in environment or environment.get("CUDA_CACHE_DISABLE") == "1":
        return {}
    return {"CUDA_CACHE_PATH": str(folder / "cuda-kernels")}
