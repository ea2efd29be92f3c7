"""What `results.json` holds of the cost of trainings."""

from typing import Any

from tlcluster.report.cost import Cost, hours
from tlcluster.report.scores import Number, Part


class CostPart(Part):
    """What a training, or several together, cost. A number that the records do not give is null."""

    worker_hours: Number
    """Of all its workers, from their start to their end. Time for features is shared out in equal
    parts among the trainings of the run that read them, whichever computed them."""
    gpu_hours: Number
    """The same times the GPUs that a worker reserved."""
    feature_worker_hours: Number
    """Of `worker_hours`: its part of features."""
    computed_worker_hours: Number
    """Time in which its own workers computed features, for itself and for others."""
    money: Number
    """In the currency of the run's `price`; null without one."""


def cost_fields(of: Cost) -> dict[str, Any]:
    """The fields of `CostPart`."""
    return {
        "worker_hours": hours(of.worker_seconds),
        "gpu_hours": hours(of.gpu_seconds),
        "feature_worker_hours": hours(of.feature_seconds),
        "computed_worker_hours": hours(of.computed_seconds),
        "money": of.money,
    }
