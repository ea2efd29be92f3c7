"""The energy counter of a GPU, read from NVML, the library that comes with NVIDIA's driver."""

import ctypes
from collections.abc import Callable


def gpu_counter(visible: str | None) -> Callable[[], float] | None:
    """Reads joules that a GPU has used since its driver was loaded; None if they cannot be read.

    GPUs have the counter from Volta on. With MIG, it is that of the whole GPU, and NVML refuses it.

    Args:
        visible: value of CUDA_VISIBLE_DEVICES, of which the first GPU is meant; None if not set.
    """
    name = (visible or "0").partition(",")[0].strip()
    device, used = ctypes.c_void_p(), ctypes.c_ulonglong()
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        if nvml.nvmlInit_v2():
            return None
        if name.isdecimal():
            failed = nvml.nvmlDeviceGetHandleByIndex_v2(
                ctypes.c_uint(int(name)), ctypes.byref(device)
            )
        else:
            failed = nvml.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(device))
        if failed or nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(used)):
            return None
    except (OSError, AttributeError):  # no library, or one without these functions
        return None

    def read() -> float:
        # If a later call fails, `used` keeps its value.
        nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(used))
        return used.value / 1000

    return read
