"""How the report looks: colours of both schemes, dashes, markers, and Matplotlib's settings."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib

from tlcluster.experiments import EXPERIMENTS


class Colour(NamedTuple):
    """A colour of both schemes, and the CSS variable that holds it in the page."""

    variable: str
    light: str
    dark: str


INK = Colour("--ink", "#1c2024", "#e4e7eb")
MUTED = Colour("--muted", "#5f6873", "#9aa4b0")
RULE = Colour("--rule", "#d6dbe1", "#343b45")
PAPER = Colour("--paper", "#ffffff", "#14171b")
FROZEN = Colour("--frozen", "#c3c9d1", "#555f6b")
HATCH = Colour("--hatch", "#8e97a3", "#8f99a6")
HEAT = Colour("--heat", "#084c8d", "#4f9fdf")

SERIES = (
    Colour("--series-1", "#0072b2", "#56b4e9"),
    Colour("--series-2", "#009e73", "#35c79a"),
    Colour("--series-3", "#cc79a7", "#e3a0c6"),
    Colour("--series-4", "#d55e00", "#f28a45"),
    Colour("--series-5", "#b08600", "#f0c64a"),
    Colour("--series-6", "#4d4f9e", "#a3a5f0"),
)
"""One colour an experiment. The first four are from Okabe and Ito's palette, which people with
any colour vision can tell apart (B. Wong, Nature Methods 8 (2011) 441)."""

COLOURS = (INK, MUTED, RULE, PAPER, FROZEN, HATCH, HEAT, *SERIES)

_DASHES = ("1 1.4", "5 1.6", "6 1.6 1.2 1.6", "")
_MARKERS = "os^D"


class Style(NamedTuple):
    """How an experiment looks in every figure and table."""

    colour: Colour
    dashes: str
    """As in SVG's `stroke-dasharray`, in line widths; empty for a solid line."""
    marker: str


# Any, since Matplotlib types the keys from 3.11 on only.
_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK.light,
    "text.parse_math": False,
    "axes.edgecolor": RULE.light,
    "axes.labelcolor": MUTED.light,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "grid.color": RULE.light,
    "grid.linewidth": 0.8,
    "xtick.color": RULE.light,
    "xtick.labelcolor": MUTED.light,
    "xtick.major.size": 3,
    "ytick.color": RULE.light,
    "ytick.labelcolor": MUTED.light,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "lines.scale_dashes": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "hatch.linewidth": 0.7,
    "svg.fonttype": "none",
    "svg.hashsalt": "tlcluster",
}


@contextlib.contextmanager
def own_look() -> Iterator[None]:
    """Matplotlib draws in the look of the report, whatever settings the user has for it.

    Use it as a decorator. A figure that is drawn inside makes no warnings.
    """
    with matplotlib.rc_context(), warnings.catch_warnings():
        # PNG files show a box for a character that the font lacks. In the page the browser
        # finds another font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Name → its look. The known experiments look the same in every run."""
    strangers = [name for name in names if name not in EXPERIMENTS]
    order = [*EXPERIMENTS, *strangers]
    return {
        name: Style(
            SERIES[order.index(name) % len(SERIES)],
            _DASHES[order.index(name) % len(_DASHES)],
            _MARKERS[order.index(name) % len(_MARKERS)],
        )
        for name in names
    }
