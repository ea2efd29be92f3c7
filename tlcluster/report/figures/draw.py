"""A run → every figure of its report."""

from collections.abc import Sequence

from tlcluster.report.classes import MANY_CLASSES
from tlcluster.report.figures import curves
from tlcluster.report.figures.architecture import architecture
from tlcluster.report.figures.canvas import Figure, Line, Scored
from tlcluster.report.figures.confusion import confusion
from tlcluster.report.figures.per_class import per_class
from tlcluster.report.figures.reliability import reliability
from tlcluster.report.figures.style import Style, styles
from tlcluster.report.figures.utilisation import Bar, utilisation
from tlcluster.report.shares import fractions
from tlcluster.report.trained import Replicate, Run


def draw_figures(run: Run) -> dict[str, Figure]:
    """Every figure for which the run has records, by its name."""
    looks = styles(run.manifest.experiments)
    lines = [
        _line(experiment.name, looks[experiment.name], trained)
        for experiment in run.experiments
        if (trained := [one for one in experiment.replicates if one.epochs])
    ]
    scored = [
        Scored(experiment.name, looks[experiment.name], experiment.metrics)
        for experiment in run.experiments
        if experiment.metrics
    ]
    drawn: list[Figure] = []
    if lines:
        drawn += [
            curves.validation_curves(lines, "accuracy"),
            curves.validation_curves(lines, "loss"),
            curves.accuracy_over_time(lines),
            curves.speed(lines),
            *(curves.training_curves(line, lines) for line in lines),
        ]
    bars = [
        Bar(one.name, looks[one.name], parts)
        for one in run.experiments
        if one.cost and one.cost.shares and (parts := fractions(one.cost.shares))
    ]
    if bars:
        drawn.append(utilisation(bars))
    if scored:
        drawn += [
            per_class(scored, "precision"),
            per_class(scored, "recall"),
            per_class(scored, "f1"),
        ]
        drawn += [
            reliability(
                experiment.name,
                looks[experiment.name],
                [one.metrics.calibration for one in experiment.replicates if one.metrics],
            )
            for experiment in run.experiments
            if experiment.metrics
        ]
        if len(run.manifest.dataset.classes) <= MANY_CLASSES:
            drawn += [confusion(one) for one in scored]
    drawn += [
        architecture(
            experiment.name,
            looks[experiment.name],
            experiment.config.layers,
            experiment.config.trainable_params,
        )
        for experiment in run.experiments
        if experiment.config
    ]
    return {figure.name: figure for figure in drawn}


def _line(name: str, look: Style, trained: Sequence[Replicate]) -> Line:
    """The curves of an experiment; of its seeds, the first that has any is the main one."""
    first, *others = trained
    return Line(name, look, first.epochs, first.best_so_far, tuple(one.epochs for one in others))
