"""Confusion matrices."""

import matplotlib
from matplotlib.patches import Rectangle

from tlcluster.report.figures.canvas import (
    Figure,
    Scored,
    heading,
    new_canvas,
    panel,
    render,
    shorten,
)
from tlcluster.report.figures.style import HEAT, INK, MUTED, PAPER, RC
from tlcluster.report.metrics import Metrics


@matplotlib.rc_context(RC)
def confusion(one: Scored) -> Figure:
    """The confusion matrix of one experiment, each row in per cent of its true class."""
    classes = [of_class.name for of_class in one.metrics.per_class]
    cell = 31 if len(classes) <= 10 else 310 / len(classes)
    left, top, side = 78, 84, cell * len(classes)
    canvas = new_canvas(left + side + 8, top + side + 8)
    heading(canvas, shorten(one.name, 30), one.style)
    axes = panel(canvas, left=left, top=top, width=side, height=side)
    axes.set(xlim=(0, len(classes)), ylim=(len(classes), 0))
    axes.grid(False)
    axes.spines[:].set_visible(False)
    ticks = [place + 0.5 for place in range(len(classes))]
    names = [shorten(name, 12) for name in classes]
    axes.xaxis.tick_top()
    axes.set_xticks(ticks, names, rotation=45, ha="left", rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    axes.tick_params(length=0, labelcolor=INK.light, pad=3)
    canvas.text(1 / canvas.bbox.width, 1 - 60 / canvas.bbox.height, "true ↓", color=MUTED.light)
    canvas.text(
        1 / canvas.bbox.width, 1 - 46 / canvas.bbox.height, "predicted →", color=MUTED.light
    )
    for row, counts in enumerate(one.metrics.confusion):
        total = sum(counts)
        for column, count in enumerate(counts):
            share = count / total if total else 0.0
            axes.add_patch(
                Rectangle(
                    (column, row), 1, 1, facecolor=HEAT.light, alpha=0.04 + 0.96 * share,
                    edgecolor=PAPER.light, linewidth=1,
                )
            )  # fmt: skip
            if share >= 0.005:
                axes.text(
                    column + 0.5, row + 0.52, f"{100 * share:.0f}", ha="center", va="center",
                    color=PAPER.light if share > 0.65 else INK.light,
                )  # fmt: skip
    return render(
        canvas,
        f"confusion_{one.name}",
        f"Confusion matrix of {one.name}. {_confused(one.metrics)}",
    )


def _confused(metrics: Metrics) -> str:
    """The largest entry beside the diagonal, in words."""
    shares = [
        (count / sum(counts), metrics.per_class[true].name, metrics.per_class[predicted].name)
        for true, counts in enumerate(metrics.confusion)
        for predicted, count in enumerate(counts)
        if count and true != predicted
    ]
    if not shares:
        return "Every image was classified right."
    share, true, predicted = max(shares)
    return f"Most often confused: {100 * share:.0f} % of {true} taken for {predicted}."
