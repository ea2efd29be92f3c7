"""Precision, recall and F1 of every class."""

from collections.abc import Sequence
from typing import Literal

import matplotlib

from tlcluster.report.figures.canvas import (
    Figure,
    Scored,
    heading,
    legend,
    new_canvas,
    panel,
    render,
    shorten,
)
from tlcluster.report.figures.style import INK, PAPER, RC, RULE
from tlcluster.report.metrics import ClassMetrics, Metrics


@matplotlib.rc_context(RC)
def per_class(scored: Sequence[Scored], measure: Literal["precision", "recall", "f1"]) -> Figure:
    """One measure of every class and experiment, as points on a line a class."""
    classes = [of_class.name for of_class in scored[0].metrics.per_class]
    row = 24
    canvas = new_canvas(360, 76 + row * len(classes))
    heading(canvas, "F1" if measure == "f1" else measure.capitalize())
    legend(canvas, scored, top=24)
    axes = panel(canvas, left=76, top=52, width=272, height=row * len(classes))
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.set_yticks(range(len(classes)), [shorten(name, 12) for name in classes])
    axes.tick_params(axis="y", labelcolor=INK.light)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(0, 1)
    axes.grid(axis="x")
    axes.grid(False, axis="y")
    for place in range(len(classes)):
        axes.axhline(place - 0.5, color=RULE.light, linewidth=0.8)
    for position, one in enumerate(scored):
        shift = 0.68 * ((position + 0.5) / len(scored) - 0.5)
        axes.plot(
            [getattr(of_class, measure) for of_class in one.metrics.per_class],
            [place + shift for place in range(len(classes))],
            linestyle="", marker=one.style.marker, markersize=5.5, clip_on=False, zorder=4,
            color=one.style.colour.light, markeredgecolor=PAPER.light, markeredgewidth=0.6,
        )  # fmt: skip
    extremes = "; ".join(
        f"{one.name} from {low.name} ({getattr(low, measure):.2f}) "
        f"to {high.name} ({getattr(high, measure):.2f})"
        for one in scored
        for low, high in [_extremes(one.metrics, measure)]
    )
    name = "F1" if measure == "f1" else measure.capitalize()
    return render(canvas, f"per_class_{measure}", f"{name} by class: {extremes}.")


def _extremes(metrics: Metrics, measure: str) -> tuple[ClassMetrics, ClassMetrics]:
    """The worst class and the best."""
    ordered = sorted(metrics.per_class, key=lambda of_class: float(getattr(of_class, measure)))
    return ordered[0], ordered[-1]
