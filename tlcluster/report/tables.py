"""The report's numbers for other programs: `results.json` and `summary.csv`."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from tlcluster.report.classes import MANY_CLASSES
from tlcluster.report.columns import COLUMNS, rows
from tlcluster.report.metrics import Comparison, Metrics
from tlcluster.report.study import published
from tlcluster.report.trained import ExperimentRun, Run


def results_json(run: Run) -> str:
    """What other programs read. Numbers are unrounded; unknown and non-finite ones are null.

    `accuracy_difference` is the accuracy of `a` less that of `b`; rows of
    `confusion` are true classes, columns predicted ones. `study` has the
    study's results that can be compared with this run's, by name; it and
    `per_origin` are empty unless the data set is CINIC-10.
    """
    manifest = run.manifest
    content = {
        "run": manifest.model_dump(
            include={
                "name", "status", "profile", "seed", "started", "finished", "wall_seconds",
                "versions", "hardware", "git_commit", "weights",
            }
        ) | {
            "weights_by_base": {
                base: record.model_dump() for base, record in manifest.base_weights.items()
            },
        },
        "dataset": manifest.dataset.model_dump(include={"name", "index_sha256", "splits"}),
        "experiments": [_experiment(experiment) for experiment in run.experiments],
        "comparisons": [_comparison(comparison) for comparison in run.comparisons],
        "study": [result.model_dump() for result in published(run)],
    }  # fmt: skip
    # A confusion matrix of 1,000 classes has a million numbers: not a line for each.
    indent = 2 if len(manifest.dataset.classes) <= MANY_CLASSES else None
    text = json.dumps(_finite(content), indent=indent, ensure_ascii=False, allow_nan=False)
    return text + "\n"


def _experiment(experiment: ExperimentRun) -> dict[str, Any]:
    result, config = experiment.result, experiment.config
    return {
        "name": experiment.name,
        "title": experiment.title,
        "status": experiment.status,
        "error": result.error,
        "workers": [worker.model_dump() for worker in result.workers],
        "attempts": result.attempts,
        "trainable_params": config.trainable_params if config else None,
        "total_params": config.total_params if config else None,
        "epochs_run": experiment.epochs_run,
        "best_epoch": result.best_epoch,
        "stopped_early": result.stopped_early,
        "wall_seconds": result.wall_seconds,
        "startup_seconds": result.startup_seconds,
        "images_per_second": result.images_per_second,
        "test": _test(experiment.metrics) if experiment.metrics else None,
        "history": {
            "loss": [epoch.loss for epoch in experiment.epochs],
            "accuracy": [epoch.accuracy for epoch in experiment.epochs],
            "val_loss": [epoch.val_loss for epoch in experiment.epochs],
            "val_accuracy": [epoch.val_accuracy for epoch in experiment.epochs],
            "epoch_seconds": [epoch.seconds for epoch in experiment.epochs],
        },
    }


def _test(metrics: Metrics) -> dict[str, Any]:
    return {
        "loss": metrics.loss,
        "accuracy": metrics.accuracy,
        "accuracy_ci95": metrics.interval,
        "precision_macro": metrics.precision_macro,
        "recall_macro": metrics.recall_macro,
        "f1_macro": metrics.f1_macro,
        "per_class": [
            {
                "class": one.name,
                "precision": one.precision,
                "recall": one.recall,
                "f1": one.f1,
                "support": one.support,
            }
            for one in metrics.per_class
        ],
        "per_origin": {
            one.name: {"accuracy": one.accuracy, "support": one.support}
            for one in metrics.per_origin
        },
        "confusion": metrics.confusion,
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "a": comparison.a,
        "b": comparison.b,
        "accuracy_difference": comparison.difference,
        "ci95": comparison.interval,
        "p_value": comparison.p_value,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summary_csv(run: Run) -> str:
    """One row for each experiment; accuracies are fractions, an empty cell is unknown."""
    named = [column for column in COLUMNS if column.name]
    return _csv(
        [column.name for column in named],
        ([column.value(row) for column in named] for row in rows(run)),
    )


def confusion_csv(metrics: Metrics) -> str:
    """Test images by true class (rows) and predicted class (columns)."""
    names = [of_class.name for of_class in metrics.per_class]
    return _csv(
        ["true class", *names],
        ([name, *counts] for name, counts in zip(names, metrics.confusion, strict=True)),
    )


def per_class_csv(run: Run) -> str:
    """One row for each experiment and class."""
    return _csv(
        ["experiment", "class", "precision", "recall", "f1", "support"],
        ([one.name, *of_class] for one in run.experiments if one.metrics
         for of_class in one.metrics.per_class),
    )  # fmt: skip


def _csv(heading: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_cell, heading))
    writer.writerows(map(_cell, line) for line in lines)
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    # A spreadsheet runs a text that begins like a formula (OWASP, "CSV Injection").
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return value
