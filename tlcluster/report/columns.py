"""The columns of the results table, in the page and in `summary.csv`.

A column is one value in `COLUMNS`: its name in the file, how to get its value,
its heading in the page and how to show the value there. The page and the file
follow from it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tlcluster.experiments import StudyResult
from tlcluster.report.formats import number, percent, plain, points
from tlcluster.report.metrics import Metrics
from tlcluster.report.study import comparable
from tlcluster.report.trained import ExperimentRun, Run

TEST, STUDY, TRAINING, REST = "Test split", "Study", "Training", ""
GROUPS = (TEST, STUDY, TRAINING, REST)
"""The groups of columns of the page, from left to right, with their headings."""


class Row(NamedTuple):
    """One experiment, and what belongs beside it."""

    experiment: ExperimentRun
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
    """The rows of the results table, in the order of the run."""
    study = comparable(run)
    return [Row(experiment, study.get(experiment.name)) for experiment in run.experiments]


def page_columns(run: Run, columns: Sequence[Column] | None = None) -> list[Column]:
    """The columns of the page, by group; without the study's if there is nothing to compare."""
    groups = [group for group in GROUPS if group != STUDY or comparable(run)]
    every = COLUMNS if columns is None else columns
    return [
        column for group in groups for column in every if column.heading and column.group == group
    ]


def text(column: Column, row: Row, view: View) -> str:
    """What a cell of the page holds; empty if the value is unknown."""
    value = column.value(row)
    return "" if value is None else column.show(value, view)


def _of_metrics(get: Callable[[Metrics], Any]) -> Callable[[Row], Any]:
    return lambda row: get(row.experiment.metrics) if row.experiment.metrics else None


def _of_study(get: Callable[[StudyResult], Any]) -> Callable[[Row], Any]:
    return lambda row: get(row.study) if row.study else None


def _difference(row: Row) -> float | None:
    """Our accuracy less the study's."""
    metrics = row.experiment.metrics
    return metrics.accuracy - row.study.accuracy if metrics and row.study else None


def _stopped_early(row: Row) -> bool | None:
    """Unknown of an experiment that has not ended."""
    result = row.experiment.result
    return result.stopped_early if result.stopped_early or result.status == "finished" else None


def _count(value: float, _: View) -> str:
    return number(value)


def _ratio(value: float, _: View) -> str:
    return number(value, 3)


COLUMNS = (
    Column("experiment", lambda row: row.experiment.name),
    Column("title", lambda row: row.experiment.title),
    Column("summary", lambda row: row.experiment.summary),
    Column("status", lambda row: row.experiment.status, "Status", group=REST, word=True),
    Column("error", lambda row: row.experiment.result.error),
    Column("test_images", _of_metrics(lambda metrics: metrics.images)),
    Column(
        "accuracy", _of_metrics(lambda metrics: metrics.accuracy), "Accuracy, %",
        lambda value, view: percent(value, view.digits), TEST,
    ),
    Column(
        "", _of_metrics(lambda metrics: metrics.interval), "95 % interval",
        lambda value, view: f"{percent(value.low, view.digits)}–{percent(value.high, view.digits)}",
        TEST,
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
    Column(
        "study_accuracy", _of_study(lambda study: study.accuracy), "Accuracy, %",
        lambda value, _: percent(value, 2), STUDY,
    ),
    Column(
        "", _difference, "Differ\N{SOFT HYPHEN}ence",
        lambda value, view: points(value, view.digits), STUDY,
    ),
    Column("study_loss", _of_study(lambda study: study.loss)),
    Column("best_epoch", lambda row: row.experiment.result.best_epoch, "Best epoch", _count),
    Column("epochs_run", lambda row: row.experiment.epochs_run, "Epochs", _count),
    Column("stopped_early", lambda row: row.experiment.result.stopped_early),
    Column("", _stopped_early, "Stopped early"),
    Column(
        "trainable_params",
        lambda row: row.experiment.config and row.experiment.config.trainable_params,
        "Trainable parameters", _count,
    ),
    Column(
        "total_params", lambda row: row.experiment.config and row.experiment.config.total_params
    ),
    Column("workers", lambda row: len(row.experiment.result.workers)),
    Column("attempts", lambda row: row.experiment.result.attempts),
    Column(
        "wall_seconds", lambda row: row.experiment.result.wall_seconds, "Time, {unit}",
        lambda value, view: number(value / view.seconds, 1),
    ),
    Column("startup_seconds", lambda row: row.experiment.result.startup_seconds),
    Column(
        "images_per_second", lambda row: row.experiment.result.images_per_second, "Images/s", _count
    ),
)  # fmt: skip
"""In the order of `summary.csv`. Within a group the page has the same order."""
