"""Precision, recall and F1 of the classes: one by one, or of many classes as a distribution."""

from collections.abc import Sequence
from typing import Literal

from tlcluster.report.classes import MANY_CLASSES
from tlcluster.report.figures.canvas import (
    Figure,
    Line,
    Scored,
    heading,
    legend,
    legend_size,
    new_canvas,
    panel,
    render,
    text_width,
)  # fmt: skip
from tlcluster.report.figures.style import INK, PAPER, RULE, own_look
from tlcluster.report.formats import shorten
from tlcluster.report.metrics import ClassMetrics, Metrics

Measure = Literal["precision", "recall", "f1"]


def per_class(scored: Sequence[Scored], measure: Measure) -> Figure:
    """One measure of the classes for every experiment."""
    many = len(scored[0].metrics.per_class) > MANY_CLASSES
    return distribution(scored, measure) if many else class_by_class(scored, measure)


@own_look()
def class_by_class(scored: Sequence[Scored], measure: Measure) -> Figure:
    """A row for each class, in which every experiment is a point."""
    names = [shorten(of_class.name, 22) for of_class in scored[0].metrics.per_class]
    row = max(24.0, 4.2 * len(scored))
    left = max(76.0, 8 + max(text_width(name, 9) for name in names))
    height = row * len(names)
    extra = legend_size(scored, left + 284).height
    canvas = new_canvas(left + 284, 76 + extra + height)
    heading(canvas, _title(measure))
    legend(canvas, scored, top=24)
    axes = panel(canvas, left=left, top=52 + extra, width=272, height=height)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelcolor=INK.light)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(0, 1)
    axes.grid(axis="x")
    axes.grid(False, axis="y")
    for place in range(len(names)):
        axes.axhline(place - 0.5, color=RULE.light, linewidth=0.8)
    for position, one in enumerate(scored):
        shift = 0.68 * ((position + 0.5) / len(scored) - 0.5)
        axes.plot(
            [getattr(of_class, measure) for of_class in one.metrics.per_class],
            [place + shift for place in range(len(names))],
            linestyle="", marker=one.style.marker, markersize=5.5, clip_on=False, zorder=4,
            color=one.style.colour.light, markeredgecolor=PAPER.light, markeredgewidth=0.6,
        )  # fmt: skip
    return render(canvas, f"per_class_{measure}", _alt(scored, measure))


@own_look()
def distribution(scored: Sequence[Scored], measure: Measure) -> Figure:
    """The share of the classes, in per cent, that reach no more than a value of the measure."""
    # Only lines have dashes in a legend.
    lines = [Line(one.name, one.style, (), None) for one in scored]
    extra = legend_size(lines, 360).height
    canvas = new_canvas(360, 296 + extra)
    heading(canvas, f"{_title(measure)}, per cent of classes up to it")
    legend(canvas, lines, top=24)
    axes = panel(canvas, left=30, top=56 + extra, width=318, height=216)
    axes.set(xlim=(0, 1), ylim=(0, 100))
    for one in scored:
        values = sorted(getattr(of_class, measure) for of_class in one.metrics.per_class)
        shares = [100 * (position + 1) / len(values) for position in range(len(values))]
        dashes = [float(length) for length in one.style.dashes.split()]
        axes.step(
            [0, *values, 1], [0, *shares, 100], where="post", clip_on=False,
            color=one.style.colour.light, linestyle=(0, dashes) if dashes else "-",
        )  # fmt: skip
    return render(canvas, f"per_class_{measure}", _alt(scored, measure))


def _title(measure: Measure) -> str:
    return "F1" if measure == "f1" else measure.capitalize()


def _alt(scored: Sequence[Scored], measure: Measure) -> str:
    extremes = "; ".join(
        f"{one.name} from {low.name} ({getattr(low, measure):.2f}) "
        f"to {high.name} ({getattr(high, measure):.2f})"
        for one in scored
        for low, high in [_extremes(one.metrics, measure)]
    )
    return f"{_title(measure)} by class: {extremes}."


def _extremes(metrics: Metrics, measure: str) -> tuple[ClassMetrics, ClassMetrics]:
    """The worst class and the best."""
    ordered = sorted(metrics.per_class, key=lambda of_class: float(getattr(of_class, measure)))
    return ordered[0], ordered[-1]
