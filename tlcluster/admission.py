"""How many workers an experiment gets, what each reserves, and how many experiments run at once.

Pure arithmetic on the cluster's resources; the driver acts on it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tlcluster.errors import UserError
from tlcluster.experiments import Experiment
from tlcluster.records import NodeRecord

LEAST_CPUS = 0.5
"""A worker that only gets every third turn of a core is better off in the queue."""


class Admission(NamedTuple):
    """What the driver asks Ray for."""

    workers: int
    """Workers of each experiment."""
    cpus_per_worker: float
    gpus_per_worker: float
    at_once: int
    """Experiments that run at the same time; the others wait their turn."""
    threads: int
    """Threads of one TensorFlow operation on the CPU."""


def admit(
    nodes: Sequence[NodeRecord],
    experiments: int,
    worker_range: tuple[int, int],
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
) -> Admission:
    """Fit `experiments` experiments into the cluster, all at once where possible.

    Args:
        nodes: the cluster's nodes.
        experiments: how many will run.
        worker_range: the least and the most workers of an experiment.
        cpus_per_worker: CPUs that a worker reserves; None chooses.
        gpus_per_worker: GPUs that a worker reserves, at most 1; None chooses.

    Raises:
        UserError: not even one experiment with the least workers can ever run.
    """
    least, most = worker_range
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    on_gpus = gpus > 0 if gpus_per_worker is None else gpus_per_worker > 0
    scarce = gpus if on_gpus else cpus
    workers = min(most, max(least, int(scarce // experiments)))
    wanted = workers * experiments
    gpu_share = 0.0
    if on_gpus:
        gpu_share = gpus_per_worker or _share(gpus / wanted, whole=1)
    if cpus_per_worker is not None:
        cpu_share = cpus_per_worker
    elif on_gpus:
        cpu_share = _share(cpus / wanted, whole=max(1, int(cpus // wanted)))
    else:
        cpu_share = max(LEAST_CPUS, _share(cpus / wanted, whole=max(1, int(cpus // wanted))))
    capacity = workers_that_fit(nodes, cpu_share, gpu_share)
    if capacity < least:
        raise UserError(
            f"--workers {least}: a worker reserves {cpu_share:g} CPUs and {gpu_share:g} GPUs, of "
            f"which this cluster of {cpus:g} CPUs and {gpus:g} GPUs on {len(nodes)} "
            f"node{'s' if len(nodes) != 1 else ''} can hold {capacity}; ask for fewer workers, "
            "for less with --cpus-per-worker or --gpus-per-worker, or use a larger cluster"
        )
    workers = min(workers, capacity)
    largest = max(int(node.cpus) for node in nodes)
    return Admission(
        workers=workers,
        cpus_per_worker=cpu_share,
        gpus_per_worker=gpu_share,
        at_once=min(experiments, capacity // workers),
        # Workers that share a core take turns anyway; the one that runs last has them all.
        threads=int(cpu_share) if cpu_share >= 1 else max(1, largest),
    )


def _share(value: float, whole: int) -> float:
    """`whole` where there is that much, else the largest 1/k that does not exceed the value."""
    if value >= whole:
        return float(whole)
    return 1 / math.ceil(1 / value - 1e-9) if value > 0 else 0.0


def workers_that_fit(nodes: Sequence[NodeRecord], cpus: float, gpus: float) -> int:
    """How many workers that reserve this much the nodes hold together."""
    return sum(_fits(node, cpus, gpus) for node in nodes)


def _fits(node: NodeRecord, cpus: float, gpus: float) -> int:
    """Workers that one node holds."""
    by_cpu = math.floor(node.cpus / cpus + 1e-9)
    return min(by_cpu, math.floor(node.gpus / gpus + 1e-9)) if gpus else by_cpu


FORWARD_FLOP = 0.627e9
"""Floating-point operations of VGG16's base on one image of 32×32, forward."""


def flop(
    experiment: Experiment, rows: Mapping[str, int], views: int | None = None, features: bool = True
) -> float:
    """Floating-point operations of the base in all epochs of an experiment and its test.

    A backward pass takes twice a forward one. Where features are kept, a frozen base sees an
    image, or a view of it, once.

    Args:
        rows: images of each split.
        views: augmented views that a frozen base takes in turn; None for a fresh one an epoch.
        features: whether features of a frozen base are kept.
    """
    epochs = experiment.epochs
    if experiment.base_trainable:
        train, valid = 3 * epochs, epochs
    elif not features:
        train, valid = epochs, epochs
    else:
        train, valid = (min(epochs, views or epochs) if experiment.augment else 1), 1
    return FORWARD_FLOP * (train * rows["train"] + valid * rows["valid"] + rows["test"])


def longest_first(experiments: Sequence[Experiment]) -> list[Experiment]:
    """The order of admission: what takes longest starts first."""
    even = {"train": 1, "valid": 1, "test": 1}
    return sorted(experiments, key=lambda experiment: -flop(experiment, even))
