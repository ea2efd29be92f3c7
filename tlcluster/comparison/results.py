"""What `comparison.json` holds, as models that write it."""

from typing import Literal

from tlcluster.comparison.apart import Apart, Value, settings_apart
from tlcluster.comparison.gather import Entry, Gathered
from tlcluster.comparison.pairs import Pair, not_paired, pairs
from tlcluster.comparison.rows import hardware, worker_seconds
from tlcluster.experiments import Experiment
from tlcluster.records import RunStatus
from tlcluster.report.results import ContrastPart, DatasetPart, MeanAccuracy
from tlcluster.report.scores import Part
from tlcluster.report.tables import contrast_fields, mean_accuracy
from tlcluster.report.trained import ExperimentRun, ReplicateStatus

VERSION: Literal[1] = 1
"""Raised if a field gets another name or meaning. Fields that are new do not raise it."""


class ExperimentPart(Part):
    """One experiment of a run, over all its seeds."""

    name: str
    title: str
    statuses: dict[str, ReplicateStatus]
    """Seed → how its training ended."""
    accuracy: MeanAccuracy | None
    """null if no seed was tested."""
    epochs_run: dict[str, int]
    """Seed → epochs."""
    wall_seconds: float
    """Of all seeds together, with workers running."""
    workers: dict[str, int]
    """Seed → workers at the end; 0 if none was recorded."""
    worker_seconds: float | None
    """Seconds of each seed times its workers; null if those of a seed are not known."""
    hardware: str
    """The devices of the first seed's workers."""
    recipe: Experiment | None


class RunPart(Part):
    """One run."""

    label: str
    """What it is called in this file: its name, with a number if an earlier run has the same."""
    name: str
    place: str
    """Where it was read."""
    status: RunStatus
    profile: str
    seeds: tuple[int, ...]
    started: str
    """UTC, ISO 8601."""
    finished: str | None
    wall_seconds: float
    dataset: DatasetPart
    test_images_sha256: str
    """Of the names and labels of its test images."""
    tested_on: str
    """The same for runs that were tested on the same images of the same data set."""
    experiments: tuple[ExperimentPart, ...]


class LeftOutPart(Part):
    """A run that was found in a folder and could not be used."""

    place: str
    why: str


class ApartPart(Part):
    """The settings of all runs, or of one experiment in the runs that have it."""

    experiment: str | None
    """null for the settings of whole runs."""
    differ: dict[str, dict[str, Value]]
    """Setting that is not the same in all of these runs → run → value."""
    same: tuple[str, ...]
    """The settings that are."""


class PairPart(ContrastPart):
    """An experiment in two runs, `a` and `b`, on the same test images, over all seeds that were
    tested. `p_adjusted` counts all pairs of this file."""

    experiment: str


class Comparison(Part):
    """Several runs of tlcluster. Accuracies are fractions, numbers are unrounded."""

    version: Literal[1]
    """Of this format. Fields may be added to it; other changes raise it."""
    command: str
    runs: tuple[RunPart, ...]
    left_out: tuple[LeftOutPart, ...]
    settings: tuple[ApartPart, ...]
    pairs: tuple[PairPart, ...]
    not_paired: tuple[str, ...]
    """Which runs are not compared by statistics and why, in words."""


def comparison(gathered: Gathered, command: str) -> Comparison:
    """The numbers of a comparison.

    Args:
        gathered: the runs.
        command: that made it.
    """
    return Comparison(
        version=VERSION,
        command=command,
        runs=tuple(map(_run, gathered.entries)),
        left_out=tuple(LeftOutPart(**one._asdict()) for one in gathered.left_out),
        settings=tuple(map(_settings, settings_apart(gathered.entries))),
        pairs=tuple(map(_pair, pairs(gathered))),
        not_paired=tuple(not_paired(gathered)),
    )


def _run(of: Entry) -> RunPart:
    manifest = of.run.manifest
    return RunPart.model_validate(
        {
            **manifest.model_dump(),
            "label": of.label,
            "place": of.place,
            "seeds": manifest.all_seeds,
            "test_images_sha256": of.answers.images,
            "tested_on": of.data,
            "experiments": tuple(map(_experiment, of.run.experiments)),
        }
    )


def _experiment(of: ExperimentRun) -> ExperimentPart:
    seeds = {str(one.seed): one for one in of.replicates}
    return ExperimentPart(
        name=of.name,
        title=of.title,
        statuses={seed: one.status for seed, one in seeds.items()},
        accuracy=MeanAccuracy(**mean_accuracy(of.accuracy)) if of.accuracy else None,
        epochs_run={seed: one.epochs_run for seed, one in seeds.items()},
        wall_seconds=sum(one.result.wall_seconds for one in of.replicates),
        workers={seed: len(one.result.workers) for seed, one in seeds.items()},
        worker_seconds=worker_seconds(of),
        hardware=hardware(of),
        recipe=of.config.experiment if of.config else None,
    )


def _settings(of: Apart) -> ApartPart:
    return ApartPart(
        experiment=of.experiment,
        differ={
            setting: {run: values[setting] for run, values in of.values.items()}
            for setting in of.differ
        },
        same=of.same,
    )


def _pair(of: Pair) -> PairPart:
    return PairPart(
        experiment=of.experiment, **contrast_fields(of.contrast, of.seeds_a, of.seeds_b)
    )
