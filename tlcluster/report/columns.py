"""The columns of the results table, in the page, in `summary.csv` and in `seeds.csv`.

A column is one value in `COLUMNS`, if it is about one training, or in `ACROSS`,
if it is about all seeds of an experiment: its name in the file, how to get its
value, its heading in the page and how to show the value there. The page and the
files follow from it.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tlcluster.experiments import StudyResult
from tlcluster.report.cost import Cost, hours, kilowatt_hours
from tlcluster.report.formats import number, percent, plain, points
from tlcluster.report.metrics import Metrics
from tlcluster.report.seeds.accuracy import Accuracy
from tlcluster.report.seeds.proportions import Interval
from tlcluster.report.study import comparable
from tlcluster.report.trained import ExperimentRun, Replicate, Run

TEST, STUDY, TRAINING, REST = "Test split", "Study", "Training", ""
GROUPS = (TEST, STUDY, TRAINING, REST)
"""The groups of columns of the page, from left to right, with their headings."""


class Row(NamedTuple):
    """One training of an experiment, and what belongs beside it."""

    experiment: ExperimentRun
    replicate: Replicate
    study: StudyResult | None
    """None if the study has nothing to compare it with."""


class View(NamedTuple):
    """How numbers are shown in the page."""

    digits: int
    """Decimals of a per cent."""
    unit: str
    """Of times."""
    seconds: float
    """In one such unit."""


class Column(NamedTuple):
    """One column of the results table."""

    name: str
    """In the file; empty for a column of the page only."""
    value: Callable[[Row], Any]
    """Unrounded; None if it is unknown."""
    heading: str = ""
    """In the page, with `{unit}` for the unit of times; empty for a column of the file only."""
    show: Callable[[Any, View], str] = lambda value, _: plain(value)
    """The text in the page of a value that is not None."""
    group: str = TRAINING
    word: bool = False
    """True for text, which is aligned at the left."""


def rows(run: Run) -> list[Row]:
    """The rows of the results table, in the order of the run: each has the first seed."""
    study = comparable(run)
    return [Row(one, one.replicates[0], study.get(one.name)) for one in run.experiments]


def replicate_rows(run: Run) -> list[Row]:
    """One row for each seed of each experiment."""
    return [
        row._replace(replicate=replicate)
        for row in rows(run)
        for replicate in row.experiment.replicates
    ]


def page_columns(run: Run, columns: Sequence[Column] | None = None) -> list[Column]:
    """The columns of the page, by group; without the study's if there is nothing to compare.

    Without `columns`, those of the results table: of a run with several seeds, `ACROSS`.
    """
    groups = [group for group in GROUPS if group != STUDY or comparable(run)]
    every = (ACROSS if run.several else COLUMNS) if columns is None else columns
    return [
        column for group in groups for column in every if column.heading and column.group == group
    ]


def text(column: Column, row: Row, view: View) -> str:
    """What a cell of the page holds; empty if the value is unknown."""
    value = column.value(row)
    return "" if value is None else column.show(value, view)


def _of_metrics(get: Callable[[Metrics], Any]) -> Callable[[Row], Any]:
    return lambda row: get(row.replicate.metrics) if row.replicate.metrics else None


def _of_study(get: Callable[[StudyResult], Any]) -> Callable[[Row], Any]:
    return lambda row: get(row.study) if row.study else None


def _difference(row: Row) -> float | None:
    """Our accuracy less the study's."""
    metrics = row.replicate.metrics
    return metrics.accuracy - row.study.accuracy if metrics and row.study else None


def _stopped_early(row: Row) -> bool | None:
    """Unknown of an experiment that has not ended."""
    result = row.replicate.result
    return result.stopped_early if result.stopped_early or result.status == "finished" else None


def _count(value: float, _: View) -> str:
    return number(value)


def _ratio(value: float, _: View) -> str:
    return number(value, 3)


def _interval(value: Interval, view: View) -> str:
    return f"{percent(value.low, view.digits)}–{percent(value.high, view.digits)}"


def _points(value: float, view: View) -> str:
    return points(value, view.digits)


def _study_accuracy(value: float, _: View) -> str:
    """With the two decimals that were published."""
    return percent(value, 2)


def _time(value: float, view: View) -> str:
    return number(value / view.seconds, 1)


def _of_accuracy(get: Callable[[Accuracy], Any]) -> Callable[[Row], Any]:
    return lambda row: get(row.experiment.accuracy) if row.experiment.accuracy else None


def _of_cost(get: Callable[[Cost], float | None]) -> Callable[[Row], float | None]:
    return lambda row: get(row.replicate.cost) if row.replicate.cost else None


def _of_all_costs(get: Callable[[Cost], float | None]) -> Callable[[Row], float | None]:
    """Of all seeds together."""
    return lambda row: get(row.experiment.cost) if row.experiment.cost else None


def _mean(get: Callable[[Metrics], float]) -> Callable[[Row], float | None]:
    """Over the seeds that were tested."""
    return lambda row: row.experiment.mean(get)


def _mean_and_spread(of: Accuracy, view: View) -> str:
    mean = percent(of.mean, view.digits)
    return mean if of.spread is None else f"{mean} ± {percent(of.spread, view.digits)}"


def _difference_of_mean(row: Row) -> float | None:
    """Our mean accuracy less the study's."""
    of = row.experiment.accuracy
    return of.mean - row.study.accuracy if of and row.study else None


def _range(get: Callable[[Replicate], int | None]) -> Callable[[Row], str | None]:
    """The least and the greatest of all seeds: `12–31`."""

    def words(row: Row) -> str | None:
        values = [value for one in row.experiment.replicates if (value := get(one)) is not None]
        ends = sorted({min(values), max(values)}) if values else []
        return "–".join(number(end) for end in ends) or None

    return words


def _statuses(row: Row) -> str:
    """`finished` if all are, else `4 finished, 1 failed`."""
    counts = Counter(one.status for one in row.experiment.replicates)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {status}" for status, count in counts.most_common())


COLUMNS = (
    Column("experiment", lambda row: row.experiment.name),
    Column("title", lambda row: row.experiment.title),
    Column("summary", lambda row: row.experiment.summary),
    Column("status", lambda row: row.replicate.status, "Status", group=REST, word=True),
    Column("error", lambda row: row.replicate.result.error),
    Column("test_images", _of_metrics(lambda metrics: metrics.images)),
    Column(
        "accuracy", _of_metrics(lambda metrics: metrics.accuracy), "Accuracy, %",
        lambda value, view: percent(value, view.digits), TEST,
    ),
    Column(
        "", _of_metrics(lambda metrics: metrics.interval), "95 % interval",
        _interval, TEST,
    ),
    Column("accuracy_ci95_low", _of_metrics(lambda metrics: metrics.interval.low)),
    Column("accuracy_ci95_high", _of_metrics(lambda metrics: metrics.interval.high)),
    Column(
        "precision_macro", _of_metrics(lambda metrics: metrics.precision_macro),
        "Preci\N{SOFT HYPHEN}sion", _ratio, TEST,
    ),
    Column(
        "recall_macro", _of_metrics(lambda metrics: metrics.recall_macro), "Recall", _ratio, TEST
    ),
    Column("f1_macro", _of_metrics(lambda metrics: metrics.f1_macro), "F1", _ratio, TEST),
    Column("loss", _of_metrics(lambda metrics: metrics.loss), "Loss", _ratio, TEST),
    Column("ece", _of_metrics(lambda metrics: metrics.calibration.error)),
    Column("brier", _of_metrics(lambda metrics: metrics.calibration.brier)),
    Column(
        "study_accuracy", _of_study(lambda study: study.accuracy), "Accuracy, %",
        _study_accuracy, STUDY,
    ),
    Column(
        "", _difference, "Differ\N{SOFT HYPHEN}ence",
        _points, STUDY,
    ),
    Column("study_loss", _of_study(lambda study: study.loss)),
    Column("best_epoch", lambda row: row.replicate.result.best_epoch, "Best epoch", _count),
    Column("epochs_run", lambda row: row.replicate.epochs_run, "Epochs", _count),
    Column("stopped_early", lambda row: row.replicate.result.stopped_early),
    Column("", _stopped_early, "Stopped early"),
    Column(
        "trainable_params",
        lambda row: row.replicate.config and row.replicate.config.trainable_params,
        "Trainable parameters", _count,
    ),
    Column(
        "total_params", lambda row: row.replicate.config and row.replicate.config.total_params
    ),
    Column("workers", lambda row: len(row.replicate.result.workers)),
    Column("attempts", lambda row: row.replicate.result.attempts),
    Column(
        "wall_seconds", lambda row: row.replicate.result.wall_seconds, "Time, {unit}",
        _time,
    ),
    Column("startup_seconds", lambda row: row.replicate.result.startup_seconds),
    Column(
        "images_per_second", lambda row: row.replicate.result.images_per_second, "Images/s", _count
    ),
    Column("worker_hours", _of_cost(lambda of: hours(of.worker_seconds))),
    Column("gpu_hours", _of_cost(lambda of: hours(of.gpu_seconds))),
    Column("feature_worker_hours", _of_cost(lambda of: hours(of.feature_seconds))),
    Column("money", _of_cost(lambda of: of.money)),
    Column("energy_kwh", _of_cost(lambda of: kilowatt_hours(of.joules))),
    Column("seed", lambda row: row.replicate.seed),
)  # fmt: skip
"""Of one training, in the order of the files. Within a group the page has the same order."""

ACROSS = (
    Column(
        "seeds", lambda row: len(row.experiment.tested), "Seeds",
        group=TEST,
    ),
    Column(
        "", _of_accuracy(lambda of: of), "Accuracy, %",
        _mean_and_spread, TEST,
    ),
    Column("accuracy_mean", _of_accuracy(lambda of: of.mean)),
    Column("accuracy_sd", _of_accuracy(lambda of: of.spread)),
    Column(
        "", _of_accuracy(lambda of: of.interval), "95 % interval",
        _interval, TEST,
    ),
    Column("accuracy_mean_ci95_low", _of_accuracy(lambda of: of.interval.low)),
    Column("accuracy_mean_ci95_high", _of_accuracy(lambda of: of.interval.high)),
    Column(
        "precision_macro_mean", _mean(lambda metrics: metrics.precision_macro),
        "Preci\N{SOFT HYPHEN}sion", _ratio, TEST,
    ),
    Column(
        "recall_macro_mean", _mean(lambda metrics: metrics.recall_macro), "Recall", _ratio, TEST
    ),
    Column("f1_macro_mean", _mean(lambda metrics: metrics.f1_macro), "F1", _ratio, TEST),
    Column("loss_mean", _mean(lambda metrics: metrics.loss), "Loss", _ratio, TEST),
    Column("ece_mean", _mean(lambda metrics: metrics.calibration.error)),
    Column("brier_mean", _mean(lambda metrics: metrics.calibration.brier)),
    Column(
        "", _of_study(lambda study: study.accuracy), "Accuracy, %",
        _study_accuracy, STUDY,
    ),
    Column(
        "", _difference_of_mean, "Differ\N{SOFT HYPHEN}ence",
        _points, STUDY,
    ),
    Column("", _range(lambda one: one.result.best_epoch), "Best epoch"),
    Column("", _range(lambda one: one.epochs_run or None), "Epochs"),
    Column(
        "", lambda row: row.experiment.config and row.experiment.config.trainable_params,
        "Trainable parameters", _count,
    ),
    Column(
        "wall_seconds_sum",
        lambda row: math.fsum(one.result.wall_seconds for one in row.experiment.replicates),
        "Time, {unit}", _time,
    ),
    Column("worker_hours_sum", _of_all_costs(lambda of: hours(of.worker_seconds))),
    Column("gpu_hours_sum", _of_all_costs(lambda of: hours(of.gpu_seconds))),
    Column("feature_worker_hours_sum", _of_all_costs(lambda of: hours(of.feature_seconds))),
    Column("money_sum", _of_all_costs(lambda of: of.money)),
    Column("energy_kwh_sum", _of_all_costs(lambda of: kilowatt_hours(of.joules))),
    Column("", _statuses, "Status", group=REST, word=True),
)  # fmt: skip
"""Of all seeds of an experiment, after `COLUMNS` in `summary.csv`; means are over the seeds that
were tested. The page has them instead if the run has several seeds."""
