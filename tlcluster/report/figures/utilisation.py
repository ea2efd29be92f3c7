"""Where the time of each experiment went, as a bar of stacked parts."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle

from tlcluster.report.figures.canvas import Figure, heading, new_canvas, panel, render, text_width
from tlcluster.report.figures.style import (
    FROZEN,
    HATCH,
    HEAT,
    INK,
    MUTED,
    PAPER,
    Colour,
    Style,
    own_look,
)
from tlcluster.report.formats import shorten
from tlcluster.report.shares import Shares

_ROW = 26.0
_LEAST = 0.06
"""A smaller part has no room for its number."""


class Bar(NamedTuple):
    """The bar of one experiment."""

    name: str
    style: Style
    parts: Shares
    """They add up to 1."""


class _Look(NamedTuple):
    """How a part looks."""

    colour: Colour
    alpha: float
    ink: Colour
    """Of the number inside it."""


# No colour of an experiment: the parts are the same in all of them.
_LOOKS: Mapping[str, _Look] = {
    "steps": _Look(HEAT, 1.0, PAPER),
    "input": _Look(HEAT, 0.5, INK),
    "collectives": _Look(HEAT, 0.2, INK),
    "validation": _Look(MUTED, 1.0, PAPER),
    "test": _Look(HATCH, 0.7, INK),
    "idle": _Look(FROZEN, 0.4, INK),
}


@own_look()
def utilisation(bars: Sequence[Bar]) -> Figure:
    """A bar for each experiment, all of the same length, of which each part is in per cent."""
    names = [shorten(one.name, 22) for one in bars]
    left = max(76.0, 20 + max(text_width(name, 9) for name in names))
    height = _ROW * len(bars)
    canvas = new_canvas(left + 420, 76 + height)
    heading(canvas, "Where the time went, %")
    _legend(canvas)
    axes = panel(canvas, left=left, top=50, width=408, height=height)
    axes.set(xlim=(0, 100), ylim=(len(bars) - 0.5, -0.5))
    axes.grid(False)
    axes.set_yticks(range(len(bars)), names)
    axes.tick_params(axis="y", labelcolor=INK.light, pad=14)
    for place, one in enumerate(bars):
        axes.plot(
            [-1.9], [place], clip_on=False, linestyle="", marker=one.style.marker, markersize=5.5,
            color=one.style.colour.light,
        )  # fmt: skip
        start = 0.0
        for part, look in _LOOKS.items():
            width = getattr(one.parts, part)
            axes.add_patch(
                Rectangle(
                    (100 * start, place - 0.36), 100 * width, 0.72, facecolor=look.colour.light,
                    alpha=look.alpha, linewidth=0,
                )
            )  # fmt: skip
            if width >= _LEAST:
                axes.text(
                    100 * (start + width / 2), place + 0.02, f"{100 * width:.0f}", ha="center",
                    va="center", color=look.ink.light, fontsize=9,
                )  # fmt: skip
            start += width
    return render(canvas, "utilisation", _alt(bars))


def _legend(canvas: Canvas) -> None:
    handles = [
        Rectangle((0, 0), 1, 1, color=look.colour.light, alpha=look.alpha, linewidth=0)
        for look in _LOOKS.values()
    ]
    canvas.legend(
        handles, list(_LOOKS), loc="upper left", ncols=len(_LOOKS), borderpad=0, borderaxespad=0,
        bbox_to_anchor=(1 / canvas.bbox.width, 1 - 25 / canvas.bbox.height), handlelength=0.9,
        handletextpad=0.5, columnspacing=1.1, fontsize=9,
    )  # fmt: skip


def _alt(bars: Sequence[Bar]) -> str:
    said = "; ".join(
        f"{one.name}: "
        + ", ".join(f"{part} {100 * width:.0f} %" for part, width in one.parts._asdict().items())
        for one in bars
    )
    return f"Where the time of the first worker went. {said}."
