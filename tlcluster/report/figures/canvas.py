"""What every figure shares: the canvas, its heading and legend, and SVG and PNG made of it.

A figure is drawn once, in the colours of the light scheme. The files beside
the report keep those; the SVG inside the page gets the same colours by name,
as CSS variables, so that the page can turn dark.

Lengths are CSS pixels at the size a figure is designed for; the page scales it.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from tlcluster.records import EpochRecord
from tlcluster.report.figures.style import COLOURS, PAPER, Style
from tlcluster.report.formats import columns, shorten
from tlcluster.report.metrics import Metrics

_PNG_SCALE = 2.5
_LEGEND_ROW = 13.5
_POINTS = 72
"""Matplotlib writes an inch as 72 units of SVG; so a point here is a pixel of the design."""


class Line(NamedTuple):
    """One experiment's training, as far as it got, and those with other seeds."""

    name: str
    style: Style
    epochs: tuple[EpochRecord, ...]
    """At least one."""
    best_epoch: int | None
    """One of `epochs`, which count from 1; None where no validation accuracy is a number."""
    others: tuple[tuple[EpochRecord, ...], ...] = ()
    """Of the other seeds, each with one epoch at least."""

    @property
    def every(self) -> tuple[tuple[EpochRecord, ...], ...]:
        """The epochs of each seed."""
        return (self.epochs, *self.others)


class Scored(NamedTuple):
    """One experiment's test metrics."""

    name: str
    style: Style
    metrics: Metrics


class Figure(NamedTuple):
    """A finished figure."""

    name: str
    """Of its files, without the suffix."""
    alt: str
    """What it shows, in words."""
    svg: bytes
    """A file of its own, in the light scheme."""
    png: bytes
    inline: str
    """The SVG for the page; all its text is escaped."""


def new_canvas(width: float, height: float) -> Canvas:
    return Canvas(figsize=(width / _POINTS, height / _POINTS), dpi=_POINTS, facecolor=PAPER.light)


def panel(canvas: Canvas, *, left: float, top: float, width: float, height: float) -> Axes:
    full_width, full_height = canvas.bbox.width, canvas.bbox.height
    axes = canvas.add_axes(
        (
            left / full_width,
            1 - (top + height) / full_height,
            width / full_width,
            height / full_height,
        )
    )
    axes.set_facecolor("none")
    return axes


def heading(canvas: Canvas, text: str, style: Style | None = None) -> None:
    """Bold, at the top left; with a square in the experiment's colour if it is about one."""
    width, height = canvas.bbox.width, canvas.bbox.height
    if style is not None:
        canvas.add_artist(
            Rectangle(
                (1 / width, 1 - 15 / height), 9 / width, 9 / height,
                color=style.colour.light, transform=canvas.transFigure,
            )
        )  # fmt: skip
    canvas.text((15 if style else 1) / width, 1 - 15 / height, text, fontsize=10, fontweight="bold")


class LegendSize(NamedTuple):
    """How the entries of a legend are arranged."""

    columns: int
    height: float
    """Beyond the two rows for which every figure has room."""


def legend_size(series: Sequence[Line] | Sequence[Scored], width: float) -> LegendSize:
    """All entries in one row if they fit into `width`, else in two columns or more."""
    handle = 36 if isinstance(series[0], Line) else 24
    needed = [text_width(shorten(one.name, 16), 9) + handle for one in series]
    if sum(needed) < width:
        return LegendSize(len(series), 0)
    fitting = max(2, int(width / max(needed)))
    rows = math.ceil(len(series) / fitting)
    return LegendSize(math.ceil(len(series) / rows), max(0, rows - 2) * _LEGEND_ROW)


def legend(canvas: Canvas, series: Sequence[Line] | Sequence[Scored], top: float) -> None:
    """One entry for each experiment; see `legend_size`."""
    handles, labels = [], []
    for one in series:
        dashes = [float(length) for length in one.style.dashes.split()]
        as_line = isinstance(one, Line)
        handles.append(
            Line2D(
                [], [], color=one.style.colour.light,
                linestyle=((0, dashes) if dashes else "-") if as_line else "",
                marker="" if as_line else one.style.marker, markersize=5.5,
            )
        )  # fmt: skip
        labels.append(shorten(one.name, 16))
    canvas.legend(
        handles, labels, loc="upper left", ncols=legend_size(series, canvas.bbox.width).columns,
        borderpad=0, borderaxespad=0,
        bbox_to_anchor=(1 / canvas.bbox.width, 1 - top / canvas.bbox.height),
        handlelength=2.4 if isinstance(series[0], Line) else 0.9,
        handletextpad=0.5, columnspacing=1.1, labelspacing=0.25, fontsize=9,
    )  # fmt: skip


def text_width(text: str, size: float) -> float:
    """About how many pixels wide a text is, in a font of this size; rather more."""
    return 0.645 * size * columns(text)


_SVG = "http://www.w3.org/2000/svg"
_XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
ElementTree.register_namespace("", _SVG)

_IN_PAGE: Mapping[str, str] = {colour.light: f"var({colour.variable})" for colour in COLOURS}
_SANS = "Helvetica, Arial, sans-serif"


def render(canvas: Canvas, name: str, alt: str) -> Figure:
    alt = shorten(alt, 2000)
    raw, png = io.BytesIO(), io.BytesIO()
    canvas.savefig(raw, format="svg")
    canvas.savefig(png, format="png", dpi=_POINTS * _PNG_SCALE, metadata={"Software": None})
    root = _lean(raw.getvalue(), name, alt)
    svg = ElementTree.tostring(root, encoding="unicode") + "\n"
    for element in root.iter():
        # A hatch names its colours in attributes, where no variable is allowed.
        paint = {
            key: element.attrib.pop(key) for key in ("fill", "stroke") if key in element.attrib
        }
        style = "".join(f"{key}: {value}; " for key, value in paint.items())
        if style := style + element.get("style", ""):
            element.set("style", _in_page(style))
    del root.attrib["width"], root.attrib["height"]
    inline = ElementTree.tostring(root, encoding="unicode")
    return Figure(name, alt, svg.encode(), png.getvalue(), inline)


def _lean(raw: bytes, name: str, alt: str) -> ElementTree.Element:
    """Matplotlib's SVG, accessible, and its ids unique among all the figures of a page."""
    root = ElementTree.fromstring(raw)  # noqa: S314 - our own, written a moment ago
    # It holds the date, and the same records make the same file.
    root.remove(root.find(f"{{{_SVG}}}metadata"))  # type: ignore[arg-type]
    used = {found.decode() for found in re.findall(rb'(?:url\(|href=")#([^)"]+)', raw)}
    for element in root.iter():
        identity = element.attrib.pop("id", None)
        if identity in used:
            element.set("id", f"{name}-{identity}")
        if (target := element.attrib.pop(_XLINK_HREF, None)) is not None:
            element.set("href", f"#{name}-{target[1:]}")
        for key in element.attrib.keys() & {"style", "clip-path", "fill"}:
            value = element.attrib[key].replace("'DejaVu Sans'", _SANS)
            element.set(key, value.replace("url(#", f"url(#{name}-"))
    root.set("role", "img")
    root.set("aria-label", alt)
    return root


def _in_page(style: str) -> str:
    style = re.sub(r"#[0-9a-f]{6}", lambda match: _IN_PAGE.get(match[0], match[0]), style)
    return style.replace(_SANS, "var(--sans)")
