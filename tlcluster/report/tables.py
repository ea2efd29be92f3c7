"""The report's numbers for other programs: `results.json` and `summary.csv`."""

import csv
import io
import json
import math
from typing import Any

from tlcluster.experiments import STUDY
from tlcluster.report.metrics import Comparison, Metrics
from tlcluster.report.runs import ExperimentRun, Run


def results_json(run: Run) -> str:
    """What other programs read. Numbers are unrounded; what is unknown or not finite is null.

    `accuracy_difference` is the accuracy of `a` less that of `b`; rows of
    `confusion` are true classes, columns predicted ones.
    """
    manifest = run.manifest
    content = {
        "run": manifest.model_dump(
            include={
                "name", "status", "profile", "seed", "started", "finished", "wall_seconds",
                "versions", "hardware", "git_commit", "weights",
            }
        ),
        "dataset": manifest.dataset.model_dump(include={"name", "index_sha256", "splits"}),
        "experiments": [_experiment(experiment) for experiment in run.experiments],
        "comparisons": [_comparison(comparison) for comparison in run.comparisons],
        "study": [result.model_dump() for result in STUDY],
    }  # fmt: skip
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
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
    """One row an experiment; accuracies are fractions, an empty cell is unknown."""
    study = {result.name: result for result in STUDY}
    rows = []
    for experiment in run.experiments:
        result, config, metrics = experiment.result, experiment.config, experiment.metrics
        published = study.get(experiment.name)
        rows.append(
            {
                "experiment": experiment.name,
                "title": experiment.title,
                "summary": experiment.summary,
                "status": experiment.status,
                "error": result.error,
                "test_images": metrics and metrics.images,
                "accuracy": metrics and metrics.accuracy,
                "accuracy_ci95_low": metrics and metrics.interval.low,
                "accuracy_ci95_high": metrics and metrics.interval.high,
                "precision_macro": metrics and metrics.precision_macro,
                "recall_macro": metrics and metrics.recall_macro,
                "f1_macro": metrics and metrics.f1_macro,
                "loss": metrics and metrics.loss,
                "study_accuracy": published and published.accuracy,
                "study_loss": published and published.loss,
                "best_epoch": result.best_epoch,
                "epochs_run": experiment.epochs_run,
                "stopped_early": result.stopped_early,
                "trainable_params": config and config.trainable_params,
                "total_params": config and config.total_params,
                "workers": len(result.workers),
                "attempts": result.attempts,
                "wall_seconds": result.wall_seconds,
                "startup_seconds": result.startup_seconds,
                "images_per_second": result.images_per_second,
            }
        )
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    # A spreadsheet runs a text that begins like a formula (OWASP, "CSV Injection").
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return value
