"""Architectures: the layers of a model, from the image down to the classes."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.patches import Polygon

from tlcluster.records import LayerRecord
from tlcluster.report.figures.canvas import Figure, heading, new_canvas, render, shorten
from tlcluster.report.figures.style import FROZEN, HATCH, INK, MUTED, PAPER, RC, RULE, Style


@matplotlib.rc_context(RC)
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
    canvas = new_canvas(280, top + bottom + 42)
    heading(canvas, shorten(name, 30), style)
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
    return render(
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
