"""What `results.json` holds of the cost of trainings."""

from typing import Any

from tlcluster.report.cost import Cost, hours, kilowatt_hours
from tlcluster.report.scores import Number, Part
from tlcluster.report.shares import fractions


class UtilisationPart(Part):
    """Parts of the time that the first worker was there; they add up to 1."""

    steps: Number
    """Training steps, with the sums of gradients over the workers, which cannot be told apart."""
    input: Number
    """Training steps waited for their batches: for storage, or for features to be computed."""
    collectives: Number
    """Waiting for the other workers at the end of each validation."""
    validation: Number
    test: Number
    idle: Number
    """All else: start-up, checkpoints, and what an attempt had done that failed."""


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
    energy_kwh: Number
    """Of processors and GPUs, with its part of shared features; null in runs of version 0.1.0, and
    if a GPU did not count its energy. `energy_source` says whether it is an estimate."""
    energy_source: str
    """`RAPL`: the processors' counters, of which a worker has its part of the node's CPU time; `an
    estimate`: 12 W for each busy core; `NVML and` one of them: the GPUs' counters, and for the
    processors one of these. Several are separated by semicolons. Empty if `energy_kwh` is null or
    no energy was used."""
    utilisation: UtilisationPart | None
    """null in runs of version 0.1.0, and without any time."""


def cost_fields(of: Cost) -> dict[str, Any]:
    """The fields of `CostPart`."""
    parts = of.shares and fractions(of.shares)
    return {
        "worker_hours": hours(of.worker_seconds),
        "gpu_hours": hours(of.gpu_seconds),
        "feature_worker_hours": hours(of.feature_seconds),
        "computed_worker_hours": hours(of.computed_seconds),
        "money": of.money,
        "energy_kwh": kilowatt_hours(of.joules),
        "energy_source": of.energy_source,
        "utilisation": parts and parts._asdict(),
    }
