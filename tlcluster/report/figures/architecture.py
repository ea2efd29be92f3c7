"""Architectures: the layers of a model, from the image down to the classes.

Of a base with many layers, the figure shows blocks instead.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import Polygon

from tlcluster.records import LayerRecord
from tlcluster.report.figures.canvas import Figure, heading, new_canvas, render
from tlcluster.report.figures.style import FROZEN, HATCH, INK, MUTED, PAPER, RULE, Style, own_look
from tlcluster.report.formats import shorten

MANY_LAYERS = 40
"""A base with more layers is shown by block: VGG19 has 21, MobileNetV2 153."""

MANY_PARTS = 80
"""A model with more layers and blocks is shown with a gap in its middle."""


class Part(NamedTuple):
    """What one slab stands for: a layer, or a block of layers."""

    name: str
    layers: int
    shape: tuple[int, ...]
    """Of the last layer's output."""
    params: int
    trainable: bool
    """True if something in it is trained."""
    in_base: bool
    group: str
    """Parts of one group stand together. If they are of the base, the group's name is shown."""

    @property
    def full_name(self) -> str:
        """The layer's own name, or the block's with its number of layers."""
        if self.layers > 1:
            return f"{self.name} ({self.layers} layers)"
        return f"{self.group}_{self.name}" if self.in_base and self.group else self.name


@own_look()
def architecture(
    name: str, style: Style, layers: Sequence[LayerRecord], trainable_params: int
) -> Figure:
    """The layers from the image down to the classes.

    A slab is a layer's output: its width follows the side of the feature map
    (square root), its height the number of channels (logarithm). Slabs without
    parameters are outlines, frozen ones hatched, trainable ones in the
    experiment's colour.
    """
    every = parts(layers)
    # 32 pixels are as wide as a slab can be, unless the images are larger.
    widest = max([32, *(_pixels(part) for part in every)])
    rows = _rows(every, widest)
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
        if row.part is None:
            hidden = f"… {len(every) - len(rows) + 1} more"
            axes.text(92, top + row.top + 10, hidden, fontsize=9, color=MUTED.light)
        else:
            _slab(axes, row.part, row, top, widest, style)
    for group, of_group in itertools.groupby(rows, key=lambda row: row.part and row.part.group):
        members = list(of_group)
        if group and members[0].part and members[0].part.in_base:
            middle = (members[0].top + members[-1].top + members[-1].height) / 2
            axes.text(
                6, top + middle, shorten(group, 8), fontsize=8.2, color=MUTED.light, rotation=90,
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
        + ", ".join(f"{part.full_name} {_shape(part)}" for part in every[: 2 * MANY_PARTS])
        + ".",
    )


def parts(layers: Sequence[LayerRecord]) -> list[Part]:
    """The layers, or the blocks of a base that has many, from input to output."""
    if sum(layer.in_base for layer in layers) <= MANY_LAYERS:
        return [_single(layer) for layer in layers]
    found: list[Part] = []
    for in_base, in_a_row in itertools.groupby(layers, key=lambda layer: layer.in_base):
        if in_base:
            found += [_whole(name, members) for name, members in _blocks(list(in_a_row))]
        else:
            found += [_single(layer) for layer in in_a_row]
    return found


def _blocks(layers: Sequence[LayerRecord]) -> list[tuple[str, list[LayerRecord]]]:
    """The layers of a base by block. Records of version 0.1.0 have no blocks; there, the names
    of the layers begin with the block's."""
    named = any(layer.block for layer in layers)
    blocks: list[tuple[str, list[LayerRecord]]] = []
    for name, members in itertools.groupby(
        layers, key=lambda layer: layer.block if named else layer.name.partition("_")[0]
    ):
        blocks.append((name or ("last layers" if blocks else "first layers"), list(members)))
    return blocks


def _single(layer: LayerRecord) -> Part:
    if layer.in_base:
        group = layer.block or layer.name.partition("_")[0]
        name = layer.name.removeprefix(group).removeprefix("_")
    else:
        group = "input" if len(layer.output_shape) == 3 and layer.output_shape[0] > 1 else "head"
        name = layer.name
    return Part(
        name=name or layer.name,
        layers=1,
        shape=layer.output_shape,
        params=layer.params,
        trainable=layer.trainable,
        in_base=layer.in_base,
        group=group,
    )


def _whole(name: str, layers: Sequence[LayerRecord]) -> Part:
    return Part(
        name=name,
        layers=len(layers),
        shape=layers[-1].output_shape,
        params=sum(layer.params for layer in layers),
        trainable=any(layer.trainable for layer in layers),
        in_base=True,
        group="",
    )


class _Row(NamedTuple):
    part: Part | None
    """None for the gap in the middle."""
    top: float
    height: float
    """Of the row; the slab is in its middle."""


_SLAB_LEFT, _SLAB_SIDE = 15.0, 64.0
_CHANNEL = 1.25
"""Pixels of height for each doubling of the channels."""


def _rows(every: Sequence[Part], widest: int) -> list[_Row]:
    shown: list[Part | None] = [*every]
    if len(every) > MANY_PARTS:
        shown = [*every[: MANY_PARTS // 2], None, *every[-MANY_PARTS // 2 :]]
    rows: list[_Row] = []
    y = 0.0
    before = shown[0] if shown else None
    for part in shown:
        if part is None or before is None or part[-2:] != before[-2:]:
            y += 7
        if part is None:
            height = 13.5
        elif part.layers > 1:
            height = 25.0
        else:
            height = max(13.5, _thickness(part) + _lift(_side(part, widest)) + 1.5)
        rows.append(_Row(part, y, height))
        y += height
        before = part
    return rows


def _thickness(part: Part) -> float:
    return _CHANNEL * (1 + math.log2(part.shape[-1]))


def _pixels(part: Part) -> int:
    """The longer side of the feature map."""
    return max(part.shape[:2]) if len(part.shape) == 3 else 1


def _side(part: Part, widest: int) -> float:
    return _SLAB_SIDE * math.sqrt(_pixels(part) / widest)


def _lift(side: float) -> float:
    """How far the back edge of a slab lies above its front edge."""
    return 1.5 + 3.5 * side / _SLAB_SIDE


def _shape(part: Part) -> str:
    return "×".join(str(length) for length in part.shape)


def _slab(axes: Axes, part: Part, row: _Row, top: float, widest: int, style: Style) -> None:
    """A box seen from the front and a little from above, and what it is in words."""
    if part.params == 0:
        fill, edge, hatch = PAPER, HATCH, None
    elif part.trainable:
        fill, edge, hatch = style.colour, PAPER, None
    else:
        fill, edge, hatch = FROZEN, HATCH, "//////"
    side, height = _side(part, widest), _thickness(part)
    middle = _SLAB_LEFT + _SLAB_SIDE / 2
    lift = _lift(side)
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
    strong = INK.light if part.params else MUTED.light
    if part.layers > 1:
        # The name of a block is longer: its shape stands below it.
        axes.text(92, text + 5, f"{part.layers} layers", fontsize=8.2, color=MUTED.light)
        text -= 6
    name, below = shorten(part.name, 20 if part.layers > 1 else 12), 11 if part.layers > 1 else 0
    axes.text(92, text, name, fontsize=9.3, color=strong)
    shape = shorten(_shape(part), 12)
    axes.text(203, text + below, shape, fontsize=9.3, color=MUTED.light, ha="right")
    if part.params:
        axes.text(279, text, f"{part.params:,}", fontsize=9.3, color=strong, ha="right")
