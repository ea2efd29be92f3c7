"""The report's numbers for other programs: `results.json`, `summary.csv` and `seeds.csv`."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tlcluster.experiments import StudyResult
from tlcluster.report.classes import MANY_CLASSES
from tlcluster.report.columns import ACROSS, COLUMNS, Column, Row, replicate_rows, rows
from tlcluster.report.cost_part import cost_fields
from tlcluster.report.metrics import Metrics
from tlcluster.report.results import VERSION, Results
from tlcluster.report.scores import Part
from tlcluster.report.seeds.accuracy import Accuracy
from tlcluster.report.seeds.contrast import Contrast
from tlcluster.report.seeds.words import replicated
from tlcluster.report.sentences import differences, limits, verdict
from tlcluster.report.single import disputed, mistakes_of
from tlcluster.report.study import comparable, published
from tlcluster.report.trained import ExperimentRun, Replicate, Run


def results_json(run: Run) -> str:
    """What other programs read: `tlcluster.report.results` names its fields.

    Numbers are unrounded; unknown and non-finite ones are null.
    """
    # A confusion matrix of 1,000 classes has a million numbers: not a line for each.
    indent = 2 if len(run.manifest.dataset.classes) <= MANY_CLASSES else None
    return json_text(results(run), indent)


def json_text(part: Part, indent: int | None = 2) -> str:
    """A JSON file. Numbers that are not finite are null."""
    content = _finite(part.model_dump(mode="json", by_alias=True))
    return json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"


def results(run: Run) -> Results:
    """The numbers of a run."""
    manifest = run.manifest
    apart, study = differences(run), comparable(run)
    return Results.model_validate(
        {
            "version": VERSION,
            "run": {
                **manifest.model_dump(),
                "weights_by_base": manifest.base_weights,
                "seeds": manifest.all_seeds,
                "store": manifest.dataset.store,
                "cost": run.cost and cost_fields(run.cost),
            },
            "dataset": manifest.dataset.model_dump(),
            "experiments": [
                _experiment(run, one, study.get(one.name), apart) for one in run.experiments
            ],
            "comparisons": [
                {
                    "a": one.a,
                    "b": one.b,
                    "accuracy_difference": one.difference,
                    "ci95": one.interval,
                    "p_value": one.p_value,
                    "p_adjusted": one.p_holm,
                    "test": one.test,
                    "only_a_right": one.only_a,
                    "only_b_right": one.only_b,
                    "effect_size": one.effect,
                }
                for one in run.comparisons
            ],
            "study": published(run),
            "comparisons_across_seeds": _contrasts(run),
            "resolution": _resolution(run),
            "verdict": verdict(run),
            "limits": limits(run),
            "differences_from_study": apart,
            "disputed": disputed(run),
            "leakage": _leakage(run),
        }
    )


def _experiment(
    run: Run, experiment: ExperimentRun, study: StudyResult | None, differences: Sequence[str]
) -> dict[str, Any]:
    config, metrics, found = experiment.config, experiment.metrics, experiment.replication
    first = experiment.replicates[0]
    return {
        **_training(first),
        "name": experiment.name,
        "title": experiment.title,
        "workers": experiment.result.workers,
        "trainable_params": config.trainable_params if config else None,
        "total_params": config.total_params if config else None,
        "test": metrics
        and {
            **_score(metrics),
            "per_class": [one._asdict() for one in metrics.per_class],
            "confusion": metrics.confusion,
            "per_origin_and_class": {
                one.name: [
                    {"name": of_class.name, "images": images, "wrong": wrong}
                    for of_class, images, wrong in zip(
                        metrics.per_class, one.of_class, one.wrong, strict=True
                    )
                ]
                for one in metrics.per_origin
            },
        },
        "summary": experiment.summary,
        "recipe": config.experiment if config else None,
        "replicates": [
            {
                **_training(one),
                "seed": one.seed,
                "test": _score(one.metrics) if one.metrics else None,
            }
            for one in experiment.replicates
        ],
        "across_seeds": _across_seeds(experiment),
        "replication": {
            "published_accuracy": found.published,
            "published_test_images": study.test_images,
            "prediction95": found.interval,
            "inside": found.inside,
            "sentence": replicated(experiment.name, found, study.test_images, differences),
        }
        if found and study
        else None,
        **mistakes_of(run, experiment.name),
    }


def _training(replicate: Replicate) -> dict[str, Any]:
    """How one training went."""
    result, epochs = replicate.result, replicate.epochs
    return {
        **result.model_dump(exclude={"workers", "sha256"}),
        "status": replicate.status,
        "epochs_run": replicate.epochs_run,
        "hangs": replicate.hangs,
        "history": {
            "loss": [epoch.loss for epoch in epochs],
            "accuracy": [epoch.accuracy for epoch in epochs],
            "val_loss": [epoch.val_loss for epoch in epochs],
            "val_accuracy": [epoch.val_accuracy for epoch in epochs],
            "epoch_seconds": [epoch.seconds for epoch in epochs],
        },
        "cost": replicate.cost and cost_fields(replicate.cost),
    }


def _score(metrics: Metrics) -> dict[str, Any]:
    of = metrics.calibration
    return {
        "images": metrics.images,
        "loss": metrics.loss,
        "accuracy": metrics.accuracy,
        "accuracy_ci95": metrics.interval,
        "precision_macro": metrics.precision_macro,
        "recall_macro": metrics.recall_macro,
        "f1_macro": metrics.f1_macro,
        "ece": of.error,
        "brier": of.brier,
        "confidence": of.confidence,
        "reliability": {
            "images": of.images,
            "confidence": of.confidences,
            "accuracy": of.accuracies,
        },
        "per_origin": {
            one.name: {"accuracy": one.accuracy, "support": one.support, "ci95": one.interval}
            for one in metrics.per_origin
        },
    }


def _across_seeds(experiment: ExperimentRun) -> dict[str, Any]:
    def mean(measure: Callable[[Metrics], float]) -> dict[str, Any] | None:
        if not experiment.tested:
            return None
        return {"mean": experiment.mean(measure), "sd": experiment.spread(measure)}

    return {
        "seeds": [one.seed for one in experiment.tested],
        "accuracy": mean_accuracy(experiment.accuracy) if experiment.accuracy else None,
        "loss": mean(lambda metrics: metrics.loss),
        "precision_macro": mean(lambda metrics: metrics.precision_macro),
        "recall_macro": mean(lambda metrics: metrics.recall_macro),
        "f1_macro": mean(lambda metrics: metrics.f1_macro),
        "ece": mean(lambda metrics: metrics.calibration.error),
        "brier": mean(lambda metrics: metrics.calibration.brier),
        "per_origin": {name: mean_accuracy(of) for name, of in experiment.origins.items()},
        "note": _note(len(experiment.tested)),
        "cost": experiment.cost and cost_fields(experiment.cost),
    }


def mean_accuracy(of: Accuracy) -> dict[str, Any]:
    """The fields of `MeanAccuracy`."""
    return {
        "mean": of.mean,
        "sd": of.spread,
        "ci95": of.interval,
        "seeds": len(of.seeds),
        "covers": of.covers,
    }


def _leakage(run: Run) -> dict[str, Any] | None:
    if run.leakage is None:
        return None
    found = run.leakage.duplicates
    return {
        "images": len(run.leakage.leaked),
        "duplicates": len(found),
        "exact": sum(one.exact for one in found),
        "other_class": sum(one.label != one.partner_label for one in found),
        "method": run.leakage.audit.method,
        "experiments": [
            {
                "name": one.name,
                "all": mean_accuracy(one.accuracy),
                "without": one.apart.without and mean_accuracy(one.apart.without),
                "only": one.apart.only and mean_accuracy(one.apart.only),
            }
            for one in run.experiments
            if one.accuracy and one.apart
        ],
    }


def _note(seeds: int) -> str | None:
    if seeds == 0:
        return "No seed was tested."
    if seeds == 1:
        return "One seed was tested, so sd is not known and ci95 covers the test images alone."
    return "With two seeds, ci95 may cover 90 % only." if seeds == 2 else None


def _contrasts(run: Run) -> list[dict[str, Any]]:
    seeds = {one.name: len(one.tested) for one in run.experiments}
    return [contrast_fields(one, seeds[one.a], seeds[one.b]) for one in run.contrasts]


def contrast_fields(one: Contrast, seeds_a: int, seeds_b: int) -> dict[str, Any]:
    """The fields of `ContrastPart`.

    Args:
        one: the contrast.
        seeds_a: of its first experiment, how many were tested.
        seeds_b: of its second.
    """
    return {
        "a": one.a,
        "b": one.b,
        "seeds_a": seeds_a,
        "seeds_b": seeds_b,
        "accuracy_difference": one.difference,
        "ci95": one.interval,
        "covers": one.covers,
        "p_value": one.p_value,
        "p_adjusted": one.p_holm,
        "test": one.test,
        "effect_size": one.effect,
        "probability_a_better": one.probability,
        "smallest_difference": one.smallest,
        "smallest_difference_any_seeds": one.smallest_with_any_seeds,
    }


def _resolution(run: Run) -> dict[str, Any] | None:
    rule, found = run.manifest.looks, run.resolution
    if rule is None or found is None:
        return None
    return {
        **rule.model_dump(),
        "level": found.level,
        "wanted": found.wanted,
        "pairs": [
            {
                "a": one.a,
                "b": one.b,
                "better": one.better,
                "seeds": one.seeds,
                "accuracy_difference": one.difference,
                "interval": one.interval,
                "p_adjusted": one.p_holm,
            }
            for one in found.pairs
        ],
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summary_csv(run: Run) -> str:
    """One row for each experiment; accuracies are fractions, an empty cell is unknown.

    What is not of `seeds` or a mean is of the first seed.
    """
    return _rows_csv((*COLUMNS, *ACROSS), rows(run))


def seeds_csv(run: Run) -> str:
    """One row for each seed of each experiment, with the columns of `summary.csv` that are of
    one seed."""
    return _rows_csv(COLUMNS, replicate_rows(run))


def _rows_csv(columns: Iterable[Column], of: Iterable[Row]) -> str:
    named = [column for column in columns if column.name]
    return csv_text(
        [column.name for column in named],
        ([column.value(row) for column in named] for row in of),
    )


def confusion_csv(metrics: Metrics) -> str:
    """Test images by true class (rows) and predicted class (columns)."""
    names = [of_class.name for of_class in metrics.per_class]
    return csv_text(
        ["true class", *names],
        ([name, *counts] for name, counts in zip(names, metrics.confusion, strict=True)),
    )


def per_class_csv(run: Run) -> str:
    """One row for each experiment and class."""
    return csv_text(
        ["experiment", "class", "precision", "recall", "f1", "support"],
        ([one.name, *of_class] for one in run.experiments if one.metrics
         for of_class in one.metrics.per_class),
    )  # fmt: skip


def csv_text(heading: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A CSV file. Numbers that are not finite are empty, and no text is a formula."""
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
