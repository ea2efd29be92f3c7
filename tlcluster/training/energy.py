"""The energy that a worker uses: measured if its node lets it, else estimated.

- Processors have counters (RAPL), which Linux lets only root read unless the administrator allows
  it. They count the whole node. A worker's part of it is its part of the node's CPU time.
- GPUs have a counter, which NVML reads. A worker that reserved a part of a GPU has this part of it.
- Without the processors' counters, each second of CPU time counts as `WATTS` joules. That is an
  estimate, and is called one.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tlcluster.machine import WATTS
from tlcluster.training.nvml import gpu_counter

POWERCAP = Path("/sys/class/powercap")
STAT = Path("/proc/stat")

LOOK_SECONDS = 60.0
"""Between two looks at the counters: RAPL's start again from 0, after 10 minutes or more."""

_PACKAGE = re.compile(r"intel-rapl:\d+")  # AMD's have this name too
_BUSY = (0, 1, 2, 5, 6, 7)
"""Columns of the first line of /proc/stat that count: user, nice, system, irq, softirq, steal."""


class Package(NamedTuple):
    """The counter of one processor."""

    file: Path
    """Microjoules."""
    limit: int
    """The counter starts again from 0 when it reaches it."""

    def read(self) -> int:
        return int(self.file.read_text())


def packages(powercap: Path = POWERCAP) -> list[Package]:
    """The counters of this node's processors; empty if one of them cannot be read."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        for folder in sorted(powercap.iterdir()):
            if _PACKAGE.fullmatch(folder.name):
                limit = int((folder / "max_energy_range_uj").read_text())
                package = Package(folder / "energy_uj", limit)
                package.read()
                found.append(package)
        return found
    return []


def node_cpu_seconds(stat: Path = STAT) -> float:
    """CPU time of all processes of this node since it was started."""
    columns = [int(ticks) for ticks in stat.read_text().split("\n", 1)[0].split()[1:]]
    return sum(columns[place] for place in _BUSY) / os.sysconf("SC_CLK_TCK")


class Meter:
    """Adds up what this process uses."""

    def __init__(
        self,
        gpus: float,
        *,
        processors: list[Package] | None = None,
        own: Callable[[], float] = time.process_time,
        node: Callable[[], float] = node_cpu_seconds,
        gpu: Callable[[], float] | None = None,
    ) -> None:
        """
        Args:
            gpus: that this worker reserved: 0, 1 or a part of one.
            processors: of the node; None finds them.
            own: CPU time of this process so far.
            node: the same of the whole node.
            gpu: joules of the GPU so far; None finds it if one is reserved.
        """
        self._gpus, self._own, self._node = gpus, own, node
        self._processors = packages() if processors is None else processors
        if gpu is None and gpus:
            gpu = gpu_counter(os.environ.get("CUDA_VISIBLE_DEVICES"))
        self._gpu = gpu
        self._joules = 0.0
        self._looked = _Counters(0.0, 0.0, (0,) * len(self._processors), 0.0)
        self._looked = self._counters()
        self._when = time.monotonic()

    @property
    def known(self) -> bool:
        """Whether `joules` has all that it should: a GPU may have no counter."""
        return self._gpu is not None or not self._gpus

    @property
    def source(self) -> str:
        """Where the numbers come from."""
        processor = "RAPL" if self._processors else "an estimate"
        return f"NVML and {processor}" if self._gpus else processor

    def look(self) -> None:
        """To be called often: it looks at the counters now and then."""
        if time.monotonic() - self._when > LOOK_SECONDS:
            self.joules()

    def joules(self) -> float:
        """What this process has used since the meter was made."""
        before, now = self._looked, self._counters()
        self._looked, self._when = now, time.monotonic()
        own = now.own - before.own
        if self._processors:
            turned = zip(self._processors, before.packages, now.packages, strict=True)
            used = sum((after - first) % one.limit for one, first, after in turned) / 1e6
            # The clocks of process and node tick at different times.
            self._joules += used * own / max(own, now.node - before.node, 1e-9)
        else:
            self._joules += WATTS * own
        self._joules += self._gpus * (now.gpu - before.gpu)
        return self._joules

    def _counters(self) -> "_Counters":
        try:
            return _Counters(
                self._own(),
                self._node() if self._processors else 0.0,
                tuple(one.read() for one in self._processors),
                self._gpu() if self._gpu else 0.0,
            )
        except (OSError, ValueError):
            # Counters that can no longer be read must not end a training.
            return self._looked._replace(own=self._own())


class _Counters(NamedTuple):
    own: float
    node: float
    packages: tuple[int, ...]
    gpu: float
