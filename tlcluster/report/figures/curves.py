"""Curves of the training: accuracy, loss and speed over epochs and time."""

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from tlcluster.records import EpochRecord
from tlcluster.report.figures.canvas import (
    Figure,
    Line,
    heading,
    legend,
    legend_size,
    new_canvas,
    panel,
    render,
)
from tlcluster.report.figures.style import MUTED, PAPER, own_look
from tlcluster.report.formats import shorten, time_unit

_LARGEST = 1e30
"""Of a value in a curve."""


@own_look()
def validation_curves(lines: Sequence[Line], quantity: Literal["accuracy", "loss"]) -> Figure:
    """Validation accuracy or loss of all experiments by epoch; a mark shows the best one."""
    canvas, axes = _wide(lines)
    heading(canvas, f"Validation {quantity}{', %' if quantity == 'accuracy' else ''}")
    for line in lines:
        for other in line.others:
            _thin(axes, _epochs(other), _of_epochs(other, f"val_{quantity}"), line)
        values = _values(line, f"val_{quantity}")
        epochs = [record.epoch for record in line.epochs]
        _draw(axes, epochs, values, line)
        _mark(axes, line, epochs, values)
    _epoch_axis(axes, lines)
    best = "; ".join(
        f"{line.name} {_said(_values(line, f'val_{quantity}'), line, quantity)}" for line in lines
    )
    return render(
        canvas,
        f"validation_{quantity}",
        f"Validation {quantity} by epoch of {len(lines)} experiments. {best}.{_also(lines)}",
    )


@own_look()
def accuracy_over_time(lines: Sequence[Line]) -> Figure:
    """Validation accuracy of all experiments over the time spent on their epochs."""
    canvas, axes = _wide(lines)
    heading(canvas, "Validation accuracy, %")
    spent = {line.name: _spent(line.epochs) for line in lines}
    longest = max(_spent(epochs)[-1] for line in lines for epochs in line.every)
    unit, seconds = time_unit(longest)
    for line in lines:
        for other in line.others:
            times_ = [time / seconds for time in _spent(other)]
            _thin(axes, times_, _of_epochs(other, "val_accuracy"), line)
        minutes = [time / seconds for time in spent[line.name]]
        values = _values(line, "val_accuracy")
        _draw(axes, minutes, values, line)
        _mark(axes, line, minutes, values)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"time spent on epochs, {unit}")
    times = "; ".join(f"{line.name} {spent[line.name][-1] / seconds:.3g} {unit}" for line in lines)
    return render(
        canvas,
        "accuracy_over_time",
        f"Validation accuracy over the time spent on epochs. In all: {times}.{_also(lines)}",
    )


def _spent(epochs: Sequence[EpochRecord]) -> list[float]:
    """Seconds until the end of each epoch."""
    return list(itertools.accumulate(record.seconds for record in epochs))


@own_look()
def speed(lines: Sequence[Line]) -> Figure:
    """Training images a second of all experiments over the epochs, on a logarithmic axis."""
    canvas, axes = _wide(lines)
    heading(canvas, "Training images a second")
    axes.set_yscale("log")
    for line in lines:
        for other in line.others:
            _thin(axes, _epochs(other), _speeds(other), line)
        _draw(axes, _epochs(line.epochs), _speeds(line.epochs), line)
    every = [speed for line in lines for epochs in line.every for speed in _speeds(epochs)]
    axes.set_ylim(min(every) / 2, max(every) * 1.5)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: _counted(value))
    axes.yaxis.set_minor_locator(NullLocator())
    _epoch_axis(axes, lines)
    medians = "; ".join(
        f"{line.name} {statistics.median(_speeds(line.epochs)):,.0f}" for line in lines
    )
    return render(
        canvas,
        "images_per_second",
        f"Training images a second by epoch. Medians: {medians}.{_also(lines)}",
    )


def _also(lines: Sequence[Line]) -> str:
    """What a figure shows of other seeds, in words."""
    return " Thin lines are other seeds." if any(line.others for line in lines) else ""


def _speeds(epochs: Sequence[EpochRecord]) -> list[float]:
    """Images a second of every epoch; at least one, since a logarithm needs it."""
    return [max(record.images_per_second, 1.0) for record in epochs]


def _epochs(of: Sequence[EpochRecord]) -> list[int]:
    return [record.epoch for record in of]


def _counted(value: float) -> str:
    """`20k` for 20,000."""
    return f"{value / 1000:.3g}k" if value >= 1000 else f"{value:g}"


def _wide(lines: Sequence[Line]) -> tuple[Canvas, Axes]:
    """A figure with all experiments, its legend, and the panel to draw in."""
    extra = legend_size(lines, 400).height
    canvas = new_canvas(400, 252 + extra)
    legend(canvas, lines, top=22)
    return canvas, panel(canvas, left=30, top=48 + extra, width=362, height=172)


@own_look()
def training_curves(line: Line, beside: Sequence[Line]) -> Figure:
    """Accuracy over loss, training and validation, of one experiment.

    The axes are those of all the lines `beside` it, itself included, so that
    the figures of a run can be compared; a vertical line marks the best epoch.
    """
    canvas = new_canvas(280, 330)
    heading(canvas, shorten(line.name, 30), line.style)
    accuracy = panel(canvas, left=32, top=46, width=240, height=104)
    loss = panel(canvas, left=32, top=186, width=240, height=104)
    epochs = [record.epoch for record in line.epochs]
    for axes, quantity in ((accuracy, "accuracy"), (loss, "loss")):
        training, validation = _values(line, quantity), _values(line, f"val_{quantity}")
        if line.best_epoch is not None:
            axes.axvline(line.best_epoch, color=MUTED.light, linewidth=0.8, dashes=(3, 2))
        for other in line.others:
            _thin(axes, _epochs(other), _of_epochs(other, f"val_{quantity}"), line)
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
            for value in (
                *_values(other, quantity),
                *(value for of in other.every for value in _of_epochs(of, f"val_{quantity}")),
            )
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
    return render(
        canvas,
        f"curves_{line.name}",
        f"Training and validation of {line.name} over {epochs[-1]} epochs: accuracy above, loss "
        f"below. Validation accuracy: {_said(_values(line, 'val_accuracy'), line, 'accuracy')}."
        f"{_also([line])}",
    )


def _values(line: Line, field: str) -> list[float]:
    return _of_epochs(line.epochs, field)


def _of_epochs(epochs: Sequence[EpochRecord], field: str) -> list[float]:
    """Of every epoch; accuracies in per cent. NaN, which leaves a gap, if it cannot be drawn."""
    factor = 100 if field.endswith("accuracy") else 1
    values = [factor * getattr(record, field) for record in epochs]
    # False for NaN. The losses are float32; Matplotlib cannot scale an axis to 1e308.
    return [value if abs(value) < _LARGEST else math.nan for value in values]


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


def _thin(axes: Axes, x: Sequence[float], y: Sequence[float], line: Line) -> None:
    """Another seed, behind the first one's line."""
    axes.plot(
        x, y, color=line.style.colour.light, linewidth=0.6, alpha=0.55, zorder=1.5,
        marker=_points(x), markersize=2,
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
    first = min(epochs[0].epoch for line in lines for epochs in line.every)
    last = max(epochs[-1].epoch for line in lines for epochs in line.every)
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
