"""How many workers an experiment gets, what each reserves, and how many experiments run at once.

Pure arithmetic on the cluster's resources; the driver acts on it.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tlcluster.errors import UserError
from tlcluster.records import NodeRecord

LEAST_CPUS = 0.5
"""A worker that only gets every third turn of a core is better off in the queue."""


MOST_PARTS = 100
"""Workers that share one GPU, or one core beside it, at most."""


class Admission(NamedTuple):
    """What the driver asks Ray for."""

    workers: int
    """Workers of each experiment."""
    cpus_per_worker: float
    gpus_per_worker: float
    at_once: int
    """Experiments that run at the same time; the others wait their turn."""
    threads: int
    """Threads of one TensorFlow operation on the CPU; see `threads_of`."""


def admit(
    nodes: Sequence[NodeRecord],
    experiments: int,
    worker_range: tuple[int, int],
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
    threads: int | None = None,
) -> Admission:
    """Fit `experiments` experiments into the cluster, all at once where possible.

    Args:
        nodes: the cluster's nodes.
        experiments: how many will run. One that runs with several seeds counts as several.
        worker_range: the least and the most workers of an experiment.
        cpus_per_worker: CPUs that a worker reserves; None chooses.
        gpus_per_worker: GPUs that a worker reserves, at most 1; None chooses.
        threads: of one operation; None chooses.

    Raises:
        UserError: not even one experiment with the least workers can ever run.
    """
    least, most = worker_range
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    on_gpus = gpus > 0 if gpus_per_worker is None else gpus_per_worker > 0

    holds = functools.partial(workers_that_fit, nodes)
    # More workers than the least only where each has a GPU, or else a core, of its own.
    gpu_share = (gpus_per_worker or 1.0) if on_gpus else 0.0
    cpu_share = cpus_per_worker or (LEAST_CPUS if on_gpus else 1.0)
    workers = min(most, max(least, holds(cpu_share, gpu_share) // experiments))
    wanted = workers * experiments
    parts = min(wanted, MOST_PARTS)
    cpu_shares = _shares(int(cpus // wanted), parts if on_gpus else round(1 / LEAST_CPUS))
    if cpus_per_worker is not None:
        cpu_shares = [cpus_per_worker]
    if on_gpus and gpus_per_worker is None:
        gpu_share = _largest(_shares(1, parts), lambda gpu: holds(cpu_shares[-1], gpu), wanted)
    cpu_share = _largest(cpu_shares, lambda cpu: holds(cpu, gpu_share), wanted)
    capacity = holds(cpu_share, gpu_share)
    if capacity < least:
        raise UserError(
            f"--workers {least}: a worker reserves {cpu_share:g} CPUs and {gpu_share:g} GPUs, of "
            f"which this cluster of {cpus:g} CPUs and {gpus:g} GPUs on {len(nodes)} "
            f"node{'s' if len(nodes) != 1 else ''} can hold {capacity}; ask for fewer workers, "
            "for less with --cpus-per-worker or --gpus-per-worker, or use a larger cluster"
        )
    workers = min(workers, capacity)
    return Admission(
        workers=workers,
        cpus_per_worker=cpu_share,
        gpus_per_worker=gpu_share,
        at_once=min(experiments, capacity // workers),
        threads=threads or threads_of(nodes, least, cpus_per_worker),
    )


def threads_of(nodes: Sequence[NodeRecord], workers: int, cpus_per_worker: float | None) -> int:
    """Threads of one TensorFlow operation on the CPU, unless the settings name a number.

    The last bits of a sum depend on how it was divided among threads. So the number follows from
    the machine and from what a worker is given, never from how many experiments or seeds run at
    the same time: `frozen` alone has the results of `frozen` among four.

    With `cpus_per_worker`, a worker has a thread for each whole CPU of them. Without, the workers
    of one experiment share the cores of the largest node, as many of them as there are on a node.
    Those of others take turns with them; the experiment that runs last has all cores.

    Args:
        nodes: the cluster's nodes.
        workers: the least workers of an experiment.
        cpus_per_worker: CPUs that a worker is to reserve; None if they were not given.
    """
    if cpus_per_worker is not None and cpus_per_worker >= 1:
        return int(cpus_per_worker)
    largest = max(int(node.cpus) for node in nodes)
    return max(1, largest // math.ceil(workers / len(nodes)))


def _shares(whole: int, parts: int) -> list[float]:
    """What a worker may get of something, the largest first: `whole` … 2, 1, 1/2 … 1/`parts`."""
    # Ray counts in ten-thousandths; rounded up, seven sevenths would not fit into one.
    fractions = (math.floor(10_000 / part) / 10_000 for part in range(2, parts + 1))
    return [*map(float, range(max(whole, 1), 0, -1)), *fractions]


def _largest(shares: Sequence[float], holds: Callable[[float], int], wanted: int) -> float:
    """The largest share of which there are as many as wanted, or as many as there can be."""
    enough = min(wanted, holds(shares[-1]))
    return next(share for share in shares if holds(share) >= enough)


def workers_that_fit(nodes: Sequence[NodeRecord], cpus: float, gpus: float) -> int:
    """How many workers that reserve this much the nodes hold together."""
    return sum(_fits(node, cpus, gpus) for node in nodes)


def _fits(node: NodeRecord, cpus: float, gpus: float) -> int:
    """Workers that one node holds."""
    by_cpu = math.floor(node.cpus / cpus + 1e-9)
    return min(by_cpu, math.floor(node.gpus / gpus + 1e-9)) if gpus else by_cpu
