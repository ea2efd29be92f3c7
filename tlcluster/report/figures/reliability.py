"""Reliability diagrams: how often predictions are right, over how sure they are."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from tlcluster.report.calibration import BINS, Calibration
from tlcluster.report.figures.canvas import Figure, heading, new_canvas, panel, render
from tlcluster.report.figures.style import MUTED, PAPER, Style, own_look
from tlcluster.report.formats import number, shorten


@own_look()
def reliability(name: str, style: Style, of: Sequence[Calibration]) -> Figure:
    """The reliability diagram of one experiment, and below it the images of each bin.

    Args:
        name: of the experiment.
        style: its look.
        of: its seeds' calibration, one at least; the first is the main one.
    """
    first, *others = of
    canvas = new_canvas(280, 372)
    heading(canvas, shorten(name, 30), style)
    axes = panel(canvas, left=32, top=49, width=240, height=196)
    counts = panel(canvas, left=32, top=280, width=240, height=48)
    axes.set(xlim=(0, 100), ylim=(0, 100))
    axes.plot([0, 100], [0, 100], color=MUTED.light, linewidth=0.8, dashes=(3, 2))
    for other in others:
        _line(axes, other, style, linewidth=0.6, alpha=0.55, zorder=1.5)
    _line(
        axes, first, style, linewidth=1.6, marker=style.marker, markersize=5.5, zorder=4,
        markeredgecolor=PAPER.light, markeredgewidth=0.6, clip_on=False,
    )  # fmt: skip
    axes.set_xticklabels([])
    _title(axes, "Accuracy, %")
    width = 100 / BINS
    counts.bar(
        [(place + 0.5) * width for place in range(BINS)], first.images,
        width=0.86 * width, color=style.colour.light, linewidth=0,
    )  # fmt: skip
    most = max(first.images)
    counts.set(xlim=(0, 100), ylim=(0, most or 1))
    counts.set_yticks([most] if most else [], [number(most)] if most else [])
    _title(counts, "Images in each bin")
    counts.set_xlabel("probability of the predicted class, %")
    return render(canvas, f"reliability_{name}", _alt(name, first, bool(others)))


def _line(axes: Axes, of: Calibration, style: Style, **look: Any) -> None:
    """Through the bins that hold images, at their mean confidence."""
    pairs = [
        (100 * confidence, 100 * accuracy)
        for confidence, accuracy in zip(of.confidences, of.accuracies, strict=True)
        if confidence is not None and accuracy is not None
    ]
    axes.plot(
        [x for x, _ in pairs], [y for _, y in pairs], color=style.colour.light, **look,
    )  # fmt: skip


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=9.5, color=MUTED.light, pad=9, x=-31 / 240)


def _alt(name: str, of: Calibration, others: bool) -> str:
    said = "; ".join(
        f"{confidence:.0%} sure, {accuracy:.0%} right, {number(images)} images"
        for confidence, accuracy, images in zip(
            of.confidences, of.accuracies, of.images, strict=True
        )
        if confidence is not None and accuracy is not None
    )
    also = " Thin lines are other seeds." if others else ""
    return f"Reliability of {name}: {said or 'no bin holds an image'}.{also}"
