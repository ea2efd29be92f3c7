"""A run as values: its experiments, the seeds of each, and the metrics that follow."""

import math
import statistics
from collections.abc import Callable
from typing import Literal, NamedTuple

from tlcluster.experiments import EXPERIMENTS
from tlcluster.records import (
    EpochRecord,
    ExperimentConfig,
    ExperimentResult,
    HangRecord,
    RunManifest,
    Status,
)
from tlcluster.report.cost import Cost, together
from tlcluster.report.leakage import Apart, Leakage
from tlcluster.report.metrics import Comparison, Metrics
from tlcluster.report.mistakes import Gallery
from tlcluster.report.seeds.accuracy import Accuracy
from tlcluster.report.seeds.contrast import Contrast
from tlcluster.report.seeds.replication import Replication
from tlcluster.report.seeds.resolve import Resolution

ReplicateStatus = Status | Literal["damaged"]
"""`damaged` if there are records that cannot be read."""


class Replicate(NamedTuple):
    """One training of an experiment, with one seed, as far as it got."""

    seed: int
    status: ReplicateStatus
    config: ExperimentConfig | None
    epochs: tuple[EpochRecord, ...]
    result: ExperimentResult
    """If it has not written one, what follows from its epochs. If it is damaged, `error` says what
    cannot be read."""
    metrics: Metrics | None
    """None until there are predictions."""
    cost: Cost | None = None
    """None if its records do not say."""
    hangs: tuple[HangRecord, ...] = ()
    """Attempts whose workers made no progress for `--stall`."""

    @property
    def epochs_run(self) -> int:
        """The result of an interrupted training may not count its last epochs."""
        return max(self.result.epochs_run, len(self.epochs))

    @property
    def best_so_far(self) -> int | None:
        """The epoch whose weights were kept, else the best one yet: the first of equals."""
        scores = {
            record.epoch: record.val_accuracy
            for record in self.epochs
            if math.isfinite(record.val_accuracy)
        }
        if self.result.best_epoch in scores:
            return self.result.best_epoch
        return max(scores, key=lambda epoch: scores[epoch]) if scores else None


class ExperimentRun(NamedTuple):
    """One experiment of a run. What is not said of all its seeds is of the first."""

    name: str
    replicates: tuple[Replicate, ...]
    """One for each seed of the run, in its order."""
    accuracy: Accuracy | None
    """Over all seeds that were tested; None if none was."""
    origins: dict[str, Accuracy]
    """The same for the test images of each origin; see `Metrics.per_origin`."""
    replication: Replication | None
    """The study's figure beside ours; None if there is no such figure, or nothing was tested."""
    apart: Apart | None = None
    """Without the test images that other splits have, and on those; None without an audit."""

    @property
    def status(self) -> ReplicateStatus:
        return self.replicates[0].status

    @property
    def config(self) -> ExperimentConfig | None:
        return self.replicates[0].config

    @property
    def epochs(self) -> tuple[EpochRecord, ...]:
        return self.replicates[0].epochs

    @property
    def result(self) -> ExperimentResult:
        return self.replicates[0].result

    @property
    def metrics(self) -> Metrics | None:
        return self.replicates[0].metrics

    @property
    def tested(self) -> tuple[Replicate, ...]:
        """Those that have metrics."""
        return tuple(one for one in self.replicates if one.metrics)

    @property
    def cost(self) -> Cost | None:
        """Of all seeds; None if that of one is not known."""
        return together(one.cost for one in self.replicates)

    def mean(self, measure: Callable[[Metrics], float]) -> float | None:
        """The mean of a measure over the seeds that were tested; None if none was."""
        values = [measure(one.metrics) for one in self.tested if one.metrics]
        return math.fsum(values) / len(values) if values else None

    def spread(self, measure: Callable[[Metrics], float]) -> float | None:
        """Its standard deviation between seeds; None with fewer than two, or if one is no
        number."""
        values = [measure(one.metrics) for one in self.tested if one.metrics]
        if len(values) < 2 or not all(map(math.isfinite, values)):
            return None
        return statistics.stdev(values)

    @property
    def title(self) -> str:
        """Its name if it has no title."""
        if self.config is not None:
            return self.config.experiment.title or self.name
        return EXPERIMENTS[self.name].title if self.name in EXPERIMENTS else self.name

    @property
    def summary(self) -> str:
        if self.config is not None:
            return self.config.experiment.summary
        return EXPERIMENTS[self.name].summary if self.name in EXPERIMENTS else ""

    @property
    def epochs_run(self) -> int:
        return self.replicates[0].epochs_run

    @property
    def best_so_far(self) -> int | None:
        return self.replicates[0].best_so_far


class Run(NamedTuple):
    """A run with the metrics that follow from its predictions."""

    manifest: RunManifest
    experiments: tuple[ExperimentRun, ...]
    comparisons: tuple[Comparison, ...]
    """Between experiments whose first seed was tested, of that seed alone."""
    contrasts: tuple[Contrast, ...]
    """Between experiments of which any seed was tested, over all that were."""
    gallery: Gallery
    """Test images to look at, by the first seed of each experiment."""
    resolution: Resolution | None = None
    """What `--resolve` decides; None in a run without it."""
    leakage: Leakage | None = None
    """None without an audit of the data set, or if nothing was tested."""

    @property
    def several(self) -> bool:
        """Whether the run has more than one seed, tested or not."""
        return len(self.manifest.all_seeds) > 1

    @property
    def cost(self) -> Cost | None:
        """Of all experiments; None if that of one is not known."""
        return together(one.cost for one in self.experiments)
