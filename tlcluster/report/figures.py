"""The figures of the report: records and metrics → SVG and PNG.

A figure is drawn once, in the colours of the light scheme. The files beside
the report keep those; the SVG inside the page gets the same colours by name,
as CSS variables, so that the page can turn dark.

Lengths are CSS pixels at the size a figure is designed for; the page scales it.
"""

import io
import itertools
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from tlcluster.experiments import EXPERIMENTS
from tlcluster.records import EpochRecord, LayerRecord
from tlcluster.report.metrics import ClassMetrics, Metrics


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


class Line(NamedTuple):
    """One experiment's training, as far as it got."""

    name: str
    style: Style
    epochs: tuple[EpochRecord, ...]
    """At least one."""
    best_epoch: int | None
    """One of `epochs`, which count from 1; None where no validation accuracy is a number."""


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
_PNG_SCALE = 2.5
_POINTS = 72
"""Matplotlib writes an inch as 72 units of SVG; so a point here is a pixel of the design."""


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


def shorten(text: str, width: int) -> str:
    """At most `width` printable characters, so that a name cannot break a layout."""
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= width else text[: width - 1] + "…"


# Curves


@matplotlib.rc_context(_RC)
def validation_curves(lines: Sequence[Line], quantity: Literal["accuracy", "loss"]) -> Figure:
    """Validation accuracy or loss of all experiments by epoch; a mark shows the best one."""
    canvas, axes = _wide(lines)
    _heading(canvas, f"Validation {quantity}{', %' if quantity == 'accuracy' else ''}")
    for line in lines:
        values = _values(line, f"val_{quantity}")
        epochs = [record.epoch for record in line.epochs]
        _draw(axes, epochs, values, line)
        _mark(axes, line, epochs, values)
    _epoch_axis(axes, lines)
    best = "; ".join(
        f"{line.name} {_said(_values(line, f'val_{quantity}'), line, quantity)}" for line in lines
    )
    return _render(
        canvas,
        f"validation_{quantity}",
        f"Validation {quantity} by epoch of {len(lines)} experiments. {best}.",
    )


@matplotlib.rc_context(_RC)
def accuracy_over_time(lines: Sequence[Line]) -> Figure:
    """Validation accuracy of all experiments over the time spent on their epochs."""
    canvas, axes = _wide(lines)
    _heading(canvas, "Validation accuracy, %")
    spent = {
        line.name: list(itertools.accumulate(record.seconds for record in line.epochs))
        for line in lines
    }
    unit, seconds = time_unit(max(times[-1] for times in spent.values()))
    for line in lines:
        minutes = [time / seconds for time in spent[line.name]]
        values = _values(line, "val_accuracy")
        _draw(axes, minutes, values, line)
        _mark(axes, line, minutes, values)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"time spent on epochs, {unit}")
    times = "; ".join(f"{line.name} {spent[line.name][-1] / seconds:.3g} {unit}" for line in lines)
    return _render(
        canvas,
        "accuracy_over_time",
        f"Validation accuracy over the time spent on epochs. In all: {times}.",
    )


@matplotlib.rc_context(_RC)
def speed(lines: Sequence[Line]) -> Figure:
    """Training images a second of all experiments over the epochs, on a logarithmic axis."""
    canvas, axes = _wide(lines)
    _heading(canvas, "Training images a second")
    axes.set_yscale("log")
    for line in lines:
        _draw(axes, [record.epoch for record in line.epochs], _speeds(line), line)
    every = [speed for line in lines for speed in _speeds(line)]
    axes.set_ylim(min(every) / 2, max(every) * 1.5)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: _counted(value))
    axes.yaxis.set_minor_locator(NullLocator())
    _epoch_axis(axes, lines)
    medians = "; ".join(f"{line.name} {statistics.median(_speeds(line)):,.0f}" for line in lines)
    return _render(
        canvas, "images_per_second", f"Training images a second by epoch. Medians: {medians}."
    )


def _speeds(line: Line) -> list[float]:
    """Images a second of every epoch; at least one, since a logarithm needs it."""
    return [max(record.images_per_second, 1.0) for record in line.epochs]


def _counted(value: float) -> str:
    """`20k` for 20,000."""
    return f"{value / 1000:.3g}k" if value >= 1000 else f"{value:g}"


def _wide(lines: Sequence[Line]) -> tuple[Canvas, Axes]:
    """A figure with all experiments, its legend, and the panel to draw in."""
    canvas = _canvas(400, 252)
    _legend(canvas, lines, top=22)
    return canvas, _panel(canvas, left=30, top=48, width=362, height=172)


@matplotlib.rc_context(_RC)
def training_curves(line: Line, beside: Sequence[Line]) -> Figure:
    """Accuracy over loss, training and validation, of one experiment.

    The axes are those of all the lines `beside` it, itself included, so that
    the figures of a run can be compared; a vertical line marks the best epoch.
    """
    canvas = _canvas(280, 330)
    _heading(canvas, shorten(line.name, 30), line.style)
    accuracy = _panel(canvas, left=32, top=46, width=240, height=104)
    loss = _panel(canvas, left=32, top=186, width=240, height=104)
    epochs = [record.epoch for record in line.epochs]
    for axes, quantity in ((accuracy, "accuracy"), (loss, "loss")):
        training, validation = _values(line, quantity), _values(line, f"val_{quantity}")
        if line.best_epoch is not None:
            axes.axvline(line.best_epoch, color=MUTED.light, linewidth=0.8, dashes=(3, 2))
        axes.plot(
            epochs, training, color=MUTED.light, linewidth=1.2, marker=_points(epochs), markersize=3
        )
        axes.plot(
            epochs,
            validation,
            color=line.style.colour.light,
            linewidth=1.8,
            marker=_points(epochs),
            markersize=3,
        )
        _mark(axes, line, epochs, validation)
        every = [
            value
            for other in beside
            for value in _values(other, quantity) + _values(other, f"val_{quantity}")
            if math.isfinite(value)
        ]
        if every:
            room = 0.05 * (max(every) - min(every)) or 0.5
            axes.set_ylim(min(every) - room, max(every) + room)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_title(
            "Accuracy, %" if quantity == "accuracy" else "Loss",
            loc="left", fontsize=9.5, color=MUTED.light, pad=6, x=-31 / 240,
        )  # fmt: skip
        _epoch_axis(axes, [line])
    accuracy.set_xlabel("")
    _key(accuracy, line)
    if line.best_epoch is not None:
        late = line.best_epoch > (epochs[0] + epochs[-1]) / 2
        loss.annotate(
            f"epoch {line.best_epoch}", (line.best_epoch, 1),
            xycoords=loss.get_xaxis_transform(), xytext=(-4 if late else 4, -2),
            textcoords="offset points", ha="right" if late else "left", va="top", fontsize=9,
            color=MUTED.light,
        )  # fmt: skip
    return _render(
        canvas,
        f"curves_{line.name}",
        f"Training and validation of {line.name} over {epochs[-1]} epochs: accuracy above, loss "
        f"below. Validation accuracy: {_said(_values(line, 'val_accuracy'), line, 'accuracy')}.",
    )


def time_unit(longest: float) -> tuple[str, float]:
    """The unit in which to show times up to `longest` seconds, and its seconds."""
    if longest < 120:
        return "s", 1.0
    return ("min", 60.0) if longest < 2 * 3600 else ("h", 3600.0)


def _values(line: Line, field: str) -> list[float]:
    """Of every epoch; accuracies in per cent; what is not finite becomes a gap."""
    factor = 100 if field.endswith("accuracy") else 1
    values = [factor * getattr(record, field) for record in line.epochs]
    return [value if math.isfinite(value) else math.nan for value in values]


def _said(values: Sequence[float], line: Line, quantity: str) -> str:
    """The value at the best epoch."""
    if line.best_epoch is None:
        return "not a number"
    value = values[_best(line)]
    said = f"{value:.1f} %" if quantity == "accuracy" else f"{value:.3f}"
    return f"{said} at epoch {line.best_epoch}"


def _best(line: Line) -> int:
    """The position of the best epoch."""
    return [record.epoch for record in line.epochs].index(line.best_epoch or 0)


def _draw(axes: Axes, x: Sequence[float], y: Sequence[float], line: Line) -> None:
    dashes = [float(length) for length in line.style.dashes.split()]
    axes.plot(
        x, y, color=line.style.colour.light, linestyle=(0, dashes) if dashes else "-",
        marker=_points(x), markersize=3,
    )  # fmt: skip


def _points(x: Sequence[float]) -> str:
    """One epoch alone makes no line; it is shown as a point."""
    return "o" if len(x) == 1 else ""


def _mark(axes: Axes, line: Line, x: Sequence[float], y: Sequence[float]) -> None:
    """The best epoch, on its line."""
    if line.best_epoch is not None:
        axes.plot(
            x[_best(line)], y[_best(line)], marker=line.style.marker, markersize=6.5, zorder=5,
            color=line.style.colour.light, markeredgecolor=PAPER.light, markeredgewidth=1.2,
            clip_on=False,
        )  # fmt: skip


def _epoch_axis(axes: Axes, lines: Sequence[Line]) -> None:
    first = min(line.epochs[0].epoch for line in lines)
    last = max(line.epochs[-1].epoch for line in lines)
    room = 0.02 * (last - first) or 0.5
    axes.set_xlim(first - room, last + room)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")


def _key(axes: Axes, line: Line) -> None:
    """Which line is which, on the right above the first panel."""
    handles = [
        Line2D([], [], color=MUTED.light, linewidth=1.2),
        Line2D([], [], color=line.style.colour.light, linewidth=1.8),
    ]
    axes.legend(
        handles, ["training", "validation"], loc="lower right", bbox_to_anchor=(1.02, 0.98),
        ncols=2, fontsize=9, handlelength=1.3, handletextpad=0.5, columnspacing=1,
        labelcolor=MUTED.light,
    )  # fmt: skip


# Test metrics


@matplotlib.rc_context(_RC)
def per_class(scored: Sequence[Scored], measure: Literal["precision", "recall", "f1"]) -> Figure:
    """One measure of every class and experiment, as points on a line a class."""
    classes = [of_class.name for of_class in scored[0].metrics.per_class]
    row = 24
    canvas = _canvas(360, 76 + row * len(classes))
    _heading(canvas, "F1" if measure == "f1" else measure.capitalize())
    _legend(canvas, scored, top=24)
    axes = _panel(canvas, left=76, top=52, width=272, height=row * len(classes))
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
    return _render(canvas, f"per_class_{measure}", f"{name} by class: {extremes}.")


def _extremes(metrics: Metrics, measure: str) -> tuple[ClassMetrics, ClassMetrics]:
    """The worst class and the best."""
    ordered = sorted(metrics.per_class, key=lambda of_class: float(getattr(of_class, measure)))
    return ordered[0], ordered[-1]


@matplotlib.rc_context(_RC)
def confusion(one: Scored) -> Figure:
    """The confusion matrix of one experiment, each row in per cent of its true class."""
    classes = [of_class.name for of_class in one.metrics.per_class]
    cell = 31 if len(classes) <= 10 else 310 / len(classes)
    left, top, side = 78, 84, cell * len(classes)
    canvas = _canvas(left + side + 8, top + side + 8)
    _heading(canvas, shorten(one.name, 30), one.style)
    axes = _panel(canvas, left=left, top=top, width=side, height=side)
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
    return _render(
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


# Architectures


@matplotlib.rc_context(_RC)
def architecture(
    name: str, style: Style, layers: Sequence[LayerRecord], trainable_params: int
) -> Figure:
    """The layers from the image down to the classes.

    A slab is a layer's output: its width follows the side of the feature map
    (square root), its height the number of channels (logarithm). Slabs without
    parameters are outlines, frozen ones hatched, trainable ones in the
    experiment's colour.
    """
    rows = _rows(layers)
    top = 50.0
    bottom = rows[-1].top + rows[-1].height if rows else 0.0
    canvas = _canvas(280, top + bottom + 42)
    _heading(canvas, shorten(name, 30), style)
    axes = canvas.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, canvas.bbox.width), ylim=(canvas.bbox.height, 0))
    axes.axis("off")
    for text, x, align in (("output", 203, "right"), ("parameters", 279, "right")):
        axes.text(x, top - 12, text, fontsize=9, color=MUTED.light, ha=align)
    for row in rows:
        _slab(axes, row, top, style)
    for block, of_block in itertools.groupby(rows, key=lambda row: _block(row.layer)):
        members = list(of_block)
        if members[0].layer.in_base:
            middle = (members[0].top + members[-1].top + members[-1].height) / 2
            axes.text(
                6, top + middle, shorten(block, 8), fontsize=8.2, color=MUTED.light, rotation=90,
                ha="center", va="center",
            )  # fmt: skip
    total = sum(layer.params for layer in layers)
    axes.plot([1, 279], [top + bottom + 7] * 2, color=RULE.light, linewidth=0.8)
    for line, (words, count) in enumerate((("all", total), ("trainable", trainable_params))):
        y = top + bottom + 21 + 14 * line
        axes.text(92, y, words, fontsize=9.3)
        axes.text(279, y, f"{count:,}", fontsize=9.3, ha="right")
    return _render(
        canvas,
        f"architecture_{name}",
        f"Architecture of {name}: {len(layers)} layers, {total:,} parameters, {trainable_params:,} "
        f"of them trainable. From input to output: "
        + ", ".join(f"{layer.name} {_shape(layer)}" for layer in layers)
        + ".",
    )


class _Row(NamedTuple):
    layer: LayerRecord
    top: float
    height: float
    """Of the row; the slab is in its middle."""


_SLAB_LEFT, _SLAB_SIDE = 15.0, 64.0
_CHANNEL = 1.25
"""Pixels of height for each doubling of the channels."""


def _rows(layers: Sequence[LayerRecord]) -> list[_Row]:
    rows: list[_Row] = []
    y = 0.0
    for position, layer in enumerate(layers):
        if position and _block(layer) != _block(layers[position - 1]):
            y += 7
        height = max(13.5, _thickness(layer) + _lift(layer) + 1.5)
        rows.append(_Row(layer, y, height))
        y += height
    return rows


def _block(layer: LayerRecord) -> str:
    """`block3` for VGG16's `block3_conv1`; the layers before and after are blocks of their own."""
    if layer.in_base:
        return layer.name.partition("_")[0]
    return "input" if len(layer.output_shape) == 3 and layer.output_shape[0] > 1 else "head"


def _thickness(layer: LayerRecord) -> float:
    return _CHANNEL * (1 + math.log2(max(layer.output_shape[-1], 1)))


def _side(layer: LayerRecord) -> float:
    """32 pixels of an image are as wide as a slab can be."""
    pixels = layer.output_shape[0] if len(layer.output_shape) == 3 else 1
    return _SLAB_SIDE * min(math.sqrt(pixels / 32), 1.0)


def _lift(layer: LayerRecord) -> float:
    """How far the back edge of a slab lies above its front edge."""
    return 1.5 + 3.5 * _side(layer) / _SLAB_SIDE


def _shape(layer: LayerRecord) -> str:
    return "×".join(str(length) for length in layer.output_shape)


def _slab(axes: Axes, row: _Row, top: float, style: Style) -> None:
    """A box seen from the front and a little from above, and what it is in words."""
    layer = row.layer
    if layer.params == 0:
        fill, edge, hatch = PAPER, HATCH, None
    elif layer.trainable:
        fill, edge, hatch = style.colour, PAPER, None
    else:
        fill, edge, hatch = FROZEN, HATCH, "//////"
    side, height = _side(layer), _thickness(layer)
    middle = _SLAB_LEFT + _SLAB_SIDE / 2
    lift = _lift(layer)
    shift = 1.8 * lift
    y = top + row.top + (row.height + height + lift) / 2
    left, right = middle - (side + shift) / 2, middle + (side - shift) / 2
    back = y - height - lift
    faces = (
        [(left, y), (right, y), (right, y - height), (left, y - height)],
        [(left, y - height), (right, y - height), (right + shift, back), (left + shift, back)],
        [(right, y), (right + shift, y - lift), (right + shift, back), (right, y - height)],
    )
    for face in faces:
        axes.add_patch(
            Polygon(
                face, facecolor=fill.light, edgecolor=edge.light, hatch=hatch, linewidth=0.6,
                joinstyle="round",
            )
        )  # fmt: skip
    text = top + row.top + row.height / 2 + 3
    strong = INK.light if layer.params else MUTED.light
    words = layer.name.partition("_")[2] if layer.in_base else layer.name
    axes.text(92, text, shorten(words or layer.name, 12), fontsize=9.3, color=strong)
    axes.text(203, text, _shape(layer), fontsize=9.3, color=MUTED.light, ha="right")
    if layer.params:
        axes.text(279, text, f"{layer.params:,}", fontsize=9.3, color=strong, ha="right")


# What all figures share


def _canvas(width: float, height: float) -> Canvas:
    return Canvas(figsize=(width / _POINTS, height / _POINTS), dpi=_POINTS, facecolor=PAPER.light)


def _panel(canvas: Canvas, *, left: float, top: float, width: float, height: float) -> Axes:
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


def _heading(canvas: Canvas, text: str, style: Style | None = None) -> None:
    """Bold, at the top left; with a square in the experiment's colour where it is about one."""
    width, height = canvas.bbox.width, canvas.bbox.height
    if style is not None:
        canvas.add_artist(
            Rectangle(
                (1 / width, 1 - 15 / height), 9 / width, 9 / height,
                color=style.colour.light, transform=canvas.transFigure,
            )
        )  # fmt: skip
    canvas.text((15 if style else 1) / width, 1 - 15 / height, text, fontsize=10, fontweight="bold")


def _legend(canvas: Canvas, series: Sequence[Line] | Sequence[Scored], top: float) -> None:
    """One entry an experiment, in a row where they fit, else in two columns."""
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
    needed = sum(5.8 * len(label) + (36 if isinstance(series[0], Line) else 24) for label in labels)
    ncols = len(series) if needed < canvas.bbox.width else 2
    canvas.legend(
        handles, labels, loc="upper left", ncols=ncols, borderpad=0, borderaxespad=0,
        bbox_to_anchor=(1 / canvas.bbox.width, 1 - top / canvas.bbox.height),
        handlelength=2.4 if isinstance(series[0], Line) else 0.9,
        handletextpad=0.5, columnspacing=1.1, labelspacing=0.25, fontsize=9,
    )  # fmt: skip


_SVG = "http://www.w3.org/2000/svg"
_XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
ElementTree.register_namespace("", _SVG)

_IN_PAGE: Mapping[str, str] = {colour.light: f"var({colour.variable})" for colour in COLOURS}
_SANS = "Helvetica, Arial, sans-serif"


def _render(canvas: Canvas, name: str, alt: str) -> Figure:
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
