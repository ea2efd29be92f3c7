"""Confusion matrices."""

from matplotlib.patches import Rectangle

from tlcluster.report.figures.canvas import (
    Figure,
    Scored,
    heading,
    new_canvas,
    panel,
    render,
    text_width,
)  # fmt: skip
from tlcluster.report.figures.style import HEAT, INK, MUTED, PAPER, own_look
from tlcluster.report.formats import shorten
from tlcluster.report.metrics import Metrics

_SLANT = 0.71
"""Sine of 45 degrees."""


@own_look()
def confusion(one: Scored) -> Figure:
    """The confusion matrix of one experiment, each row in per cent of its true class.

    It is meant for up to `tlcluster.report.classes.MANY_CLASSES` classes.
    """
    names = [shorten(of_class.name, 18) for of_class in one.metrics.per_class]
    n = len(names)
    side = max(min(62 * n, 310), 31 * min(n, 12), 22 * n)
    cell = side / n
    longest = max(text_width(name, 9.5) for name in names)
    left = max(78.0, 8 + longest)
    # The names of the columns are written at 45 degrees.
    top = max(84.0, 24 + _SLANT * longest)
    overhang = max(
        (place + 0.5) * cell + _SLANT * text_width(name, 9.5) - side
        for place, name in enumerate(names)
    )
    width = left + side + max(8.0, overhang)
    canvas = new_canvas(max(width, 396), top + side + 8)
    heading(canvas, shorten(one.name, 30), one.style)
    axes = panel(canvas, left=left, top=top, width=side, height=side)
    axes.set(xlim=(0, n), ylim=(n, 0))
    axes.grid(False)
    axes.spines[:].set_visible(False)
    ticks = [place + 0.5 for place in range(n)]
    axes.xaxis.tick_top()
    axes.set_xticks(ticks, names, rotation=45, ha="left", rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    axes.tick_params(length=0, labelcolor=INK.light, pad=3)
    for words, above in (("true ↓", 24), ("predicted →", 38)):
        canvas.text(
            1 / canvas.bbox.width, 1 - (top - above) / canvas.bbox.height, words, color=MUTED.light
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
                shown = f"{max(100 * share, 1):.0f}"
                axes.text(
                    column + 0.5, row + 0.52, shown, ha="center", va="center",
                    color=PAPER.light if share > 0.65 else INK.light,
                    fontsize=9.5 if cell >= 28 else 8,
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
        return "Every image was classified correctly."
    share, true, predicted = max(shares)
    return f"Most often confused: {100 * share:.0f} % of {true} taken for {predicted}."
