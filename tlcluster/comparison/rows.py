"""The rows of the results: an experiment of a run each, with the columns of page and CSV."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tlcluster.comparison.gather import Entry, Gathered
from tlcluster.report.columns import ACROSS, COLUMNS, STUDY, View, rows, text
from tlcluster.report.columns import Row as ReportRow
from tlcluster.report.cost import hours
from tlcluster.report.formats import moment, number, shorten
from tlcluster.report.page import workers
from tlcluster.report.tables import csv_text
from tlcluster.report.trained import ExperimentRun


class Row(NamedTuple):
    """An experiment of a run."""

    entry: Entry
    row: ReportRow

    @property
    def experiment(self) -> ExperimentRun:
        return self.row.experiment

    @property
    def wall_seconds(self) -> float:
        """Of all its trainings."""
        return math.fsum(one.result.wall_seconds for one in self.experiment.replicates)

    @property
    def workers(self) -> int:
        """Of a training, at its end; the most if its seeds had different numbers."""
        return max(len(one.result.workers) for one in self.experiment.replicates)


class Column(NamedTuple):
    """A column of the page."""

    heading: str
    """With `{unit}` for the unit of times."""
    show: Callable[[Row, View], str]
    number: Callable[[Row], float | None] | None = None
    """What rows are sorted by. None for text, which is aligned at the left."""


def all_rows(gathered: Gathered) -> list[Row]:
    """The rows, the highest accuracy first; those without one come last, in their order."""
    every = [Row(entry, row) for entry in gathered.entries for row in rows(entry.run)]
    return sorted(every, key=lambda one: -of.mean if (of := one.experiment.accuracy) else 1.0)


def worker_seconds(experiment: ExperimentRun) -> float | None:
    """The time of the workers of all its trainings; None if that of one is unknown."""
    return experiment.cost.worker_seconds if experiment.cost else None


def hardware(experiment: ExperimentRun) -> str:
    """The devices of its workers, `2 × NVIDIA H100`; empty if none was recorded."""
    return workers(experiment)["devices"]


def _of_report(heading: str, number: Callable[[Row], float | None] | None = None) -> Column:
    """A column that the report has, about all seeds of an experiment."""
    (column,) = (one for one in ACROSS if one.heading == heading and one.group != STUDY)
    return Column(heading, lambda row, view: text(column, row.row, view), number)


def _day(started: str) -> str:
    return shorten(moment(started).partition(" ")[0], 20)


DATA = Column("Tested on", lambda row, _: row.entry.data)
"""A column for runs that were not all tested on the same images."""

PAGE = (
    _of_report("Seeds", lambda row: len(row.experiment.tested)),
    _of_report("Accuracy, %", lambda row: of.mean if (of := row.experiment.accuracy) else None),
    _of_report(
        "95 % interval",
        lambda row: of.interval.low if (of := row.experiment.accuracy) else None,
    ),
    _of_report("Epochs", lambda row: max(one.epochs_run for one in row.experiment.replicates)),
    _of_report("Time, {unit}", lambda row: row.wall_seconds),
    Column("Workers", lambda row, _: number(row.workers or None), lambda row: row.workers),
    Column(
        "Worker-hours",
        lambda row, _: number(hours(worker_seconds(row.experiment)), 2),
        lambda row: worker_seconds(row.experiment),
    ),
    Column("Hardware", lambda row, _: shorten(hardware(row.experiment), 40)),
    Column("Started", lambda row, _: _day(row.entry.run.manifest.started)),
    _of_report("Status"),
)
"""From left to right, after the run and the experiment."""

_FILE: tuple[tuple[str, Callable[[Row], object]], ...] = (
    ("run", lambda row: row.entry.label),
    ("place", lambda row: row.entry.place),
    ("tested_on", lambda row: row.entry.data),
    ("started", lambda row: row.entry.run.manifest.started),
    ("profile", lambda row: row.entry.run.manifest.profile),
    *(
        (column.name, lambda row, column=column: column.value(row.row))
        for column in (*COLUMNS, *ACROSS)
        if column.name
    ),
    ("worker_seconds", lambda row: worker_seconds(row.experiment)),
    ("hardware", lambda row: hardware(row.experiment)),
)


def comparison_csv(rows: Sequence[Row]) -> str:
    """One row for each experiment of each run, with the columns of each run's `summary.csv`."""
    return csv_text(
        [name for name, _ in _FILE], ([value(row) for _, value in _FILE] for row in rows)
    )
