"""What this machine is: its processor and the CPUs that this process may use."""

import os
from pathlib import Path

WATTS = 12.0
"""Of a busy core, if its energy cannot be measured: what Green Algorithms takes for any processor
(Lannelongue, Grealey and Inouye, Advanced Science 8 (2021) 2100707)."""


def local_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """This machine's processor in words; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else ""
