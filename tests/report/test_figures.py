"""The figures: drawn from records alone, the same every time, readable by eye and by machine."""

import io
import re
from collections.abc import Callable
from xml.etree import ElementTree

import fake_run
import numpy as np
import pytest
from PIL import Image

from tlcluster.cinic10 import CLASSES
from tlcluster.experiments import EXPERIMENTS
from tlcluster.records import LayerRecord
from tlcluster.report import formats
from tlcluster.report.figures import curves, style
from tlcluster.report.figures.architecture import architecture
from tlcluster.report.figures.canvas import Figure, Line, Scored
from tlcluster.report.figures.confusion import confusion
from tlcluster.report.figures.per_class import per_class
from tlcluster.report.figures.utilisation import Bar, utilisation
from tlcluster.report.metrics import Predictions, evaluate
from tlcluster.report.shares import Shares

STYLES = style.styles(list(EXPERIMENTS))
SVG = "{http://www.w3.org/2000/svg}"


def line(name: str, epochs: int | None = None) -> Line:
    records = fake_run.epoch_records(name, epochs)
    best = min(fake_run.SHAPES[name].best, len(records))
    return Line(name, STYLES[name], tuple(records), best)


def scored(name: str, images: int = 200, classes: tuple[str, ...] = CLASSES) -> Scored:
    with np.load(io.BytesIO(fake_run.predictions(name, images, classes))) as arrays:
        told = Predictions(arrays["source"], arrays["label"], arrays["probabilities"])
    return Scored(name, STYLES[name], evaluate(told, classes))


def drawing(name: str) -> Figure:
    config = fake_run.experiment_config(EXPERIMENTS[name])
    return architecture(name, STYLES[name], config.layers, config.trainable_params)


LINES = [line(name) for name in EXPERIMENTS]

BARS = [
    Bar("frozen", STYLES["frozen"], Shares(0.25, 0.5, 0.0, 0.125, 0.0, 0.125)),
    Bar("finetuned", STYLES["finetuned"], Shares(0.875, 0.03125, 0.03125, 0.03125, 0.03125, 0.0)),
]
"""Where time went; see `Shares`."""

EVERY: dict[str, Callable[[], Figure]] = {
    "validation_accuracy": lambda: curves.validation_curves(LINES, "accuracy"),
    "validation_loss": lambda: curves.validation_curves(LINES, "loss"),
    "accuracy_over_time": lambda: curves.accuracy_over_time(LINES),
    "images_per_second": lambda: curves.speed(LINES),
    "curves_finetuned": lambda: curves.training_curves(LINES[3], LINES),
    "per_class_f1": lambda: per_class([scored("frozen"), scored("finetuned")], "f1"),
    "confusion_frozen": lambda: confusion(scored("frozen")),
    "architecture_regularized": lambda: drawing("regularized"),
    "utilisation": lambda: utilisation(BARS),
}


@pytest.fixture(scope="module")
def drawn() -> dict[str, Figure]:
    return {name: draw() for name, draw in EVERY.items()}


def parsed(svg: str | bytes) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - our own


def texts(figure: Figure) -> list[str]:
    return [element.text or "" for element in parsed(figure.svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("name", EVERY)
def test_the_same_records_draw_the_same_bytes(name: str, drawn: dict[str, Figure]) -> None:
    assert EVERY[name]() == drawn[name]


@pytest.mark.parametrize("name", EVERY)
def test_a_figure_says_what_it_shows_and_refers_to_nothing_outside(
    name: str, drawn: dict[str, Figure]
) -> None:
    figure = drawn[name]
    assert figure.name == name
    for text in (figure.svg.decode(), figure.inline):
        root = parsed(text)
        assert root.get("role") == "img"
        assert root.get("aria-label") == figure.alt
        ids = [element.get("id") for element in root.iter() if element.get("id")]
        assert all(identity.startswith(f"{name}-") for identity in ids)
        # Every reference is to one of them.
        references = re.findall(r'url\((.*?)\)|href="(.*?)"', text)
        assert {reference for pair in references for reference in pair if reference} <= {
            f"#{identity}" for identity in ids
        }


@pytest.mark.parametrize("name", EVERY)
def test_the_page_decides_on_every_colour_and_font(name: str, drawn: dict[str, Figure]) -> None:
    inline = drawn[name].inline
    assert set(re.findall(r"var\((--\w[\w-]*)\)", inline)) <= {
        "--sans",
        *(colour.variable for colour in style.COLOURS),
    }
    assert re.findall(r"#[0-9a-f]{6}\b", inline) == []
    assert "DejaVu" not in inline


@pytest.mark.parametrize("name", EVERY)
def test_the_files_are_in_the_light_scheme_with_a_white_ground(
    name: str, drawn: dict[str, Figure]
) -> None:
    assert b"var(" not in drawn[name].svg
    image = Image.open(io.BytesIO(drawn[name].png)).convert("RGB")
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image.width >= 700


def test_colours_of_the_light_scheme_can_be_told_apart_by_name() -> None:
    light = [colour.light for colour in style.COLOURS]
    assert len(set(light)) == len(light)
    assert all(re.fullmatch(r"#[0-9a-f]{6}", colour) for colour in light)


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_and_text_stand_out_from_the_ground_in_both_schemes(scheme: str) -> None:
    def contrast(colour: style.Colour) -> float:
        pair = luminance(getattr(colour, scheme)), luminance(getattr(style.PAPER, scheme))
        return (max(pair) + 0.05) / (min(pair) + 0.05)

    # WCAG 2.2: 4.5 for text, 3 for what else carries meaning.
    assert min(contrast(style.INK), contrast(style.MUTED)) >= 4.5
    assert min(map(contrast, style.SERIES)) >= 3


def test_an_experiment_looks_the_same_in_every_run() -> None:
    assert style.styles(["finetuned"])["finetuned"] == STYLES["finetuned"]
    looks = style.styles(["stranger", *EXPERIMENTS])
    assert {name: looks[name] for name in EXPERIMENTS} == STYLES


def test_no_two_of_the_first_experiments_share_a_colour_a_dash_or_a_mark() -> None:
    for looks in zip(*STYLES.values(), strict=True):
        assert len(set(looks)) == len(EXPERIMENTS)


def test_the_curves_tell_the_best_epoch_and_its_value() -> None:
    figure = curves.training_curves(LINES[0], LINES)
    assert "epoch 14" in texts(figure)
    assert "Validation accuracy: 48.6 % at epoch 14." in figure.alt


def test_one_epoch_is_enough_for_every_curve() -> None:
    only = line("frozen", 1)
    for figure in (
        curves.validation_curves([only], "accuracy"),
        curves.training_curves(only, [only]),
        curves.accuracy_over_time([only]),
        curves.speed([only]),
    ):
        assert figure.png


@pytest.mark.filterwarnings("error")
def test_numbers_that_are_none_leave_gaps() -> None:
    nothing = {"loss": np.nan, "accuracy": np.nan, "val_loss": np.inf, "val_accuracy": np.nan}
    diverged = line("frozen", 5)._replace(best_epoch=None)
    diverged = diverged._replace(
        epochs=tuple(record.model_copy(update=nothing) for record in diverged.epochs)
    )
    figure = curves.training_curves(diverged, [diverged])
    assert "Validation accuracy: not a number." in figure.alt
    assert curves.validation_curves([diverged, LINES[1]], "loss").png


def test_a_confusion_matrix_shows_the_share_of_the_true_class_in_per_cent() -> None:
    label = np.array([0, 0, 0, 0, 1, 1])
    predicted = np.eye(2, dtype=np.float32)[[0, 0, 0, 1, 1, 1]]
    told = Predictions(np.array(["cifar-10-1.png"] * 6), label, predicted)
    metrics = evaluate(told, ("cat", "dog"))
    figure = confusion(Scored("frozen", STYLES["frozen"], metrics))
    shown = texts(figure)
    assert [text for text in shown if text.isdigit()] == ["75", "25", "100"]
    # White on the dark cells, ink on the light ones.
    fills = {
        element.text: re.findall("fill: (#[0-9a-f]{6})", element.get("style", ""))
        for element in parsed(figure.svg).iter(f"{SVG}text")
    }
    assert fills["100"] == fills["75"] == [style.PAPER.light]
    assert fills["25"] == [style.INK.light]
    assert figure.alt.endswith("Most often confused: 25 % of cat taken for dog.")


def test_an_architecture_names_every_layer_with_its_shape_and_parameters() -> None:
    figure = drawing("regularized")
    shown = texts(figure)
    for layer in fake_run.experiment_config(EXPERIMENTS["regularized"]).layers:
        assert "×".join(map(str, layer.output_shape)) in shown
        if layer.params:
            assert f"{layer.params:,}" in shown
    assert {"block1", "block5", "conv3", "base_norm", "dropout", "logits"} <= set(shown)
    assert "14,986,570 parameters, 269,834 of them trainable" in figure.alt


def test_frozen_layers_are_hatched_and_trained_ones_are_coloured() -> None:
    frozen, finetuned = drawing("frozen"), drawing("finetuned")
    assert b"<pattern" in frozen.svg
    assert b"<pattern" not in finetuned.svg
    # Two dense layers against all thirteen convolutions and those two, three faces each.
    assert frozen.inline.count("fill: var(--series-1)") == 2 * 3 + 1
    assert finetuned.inline.count("fill: var(--series-4)") == 15 * 3 + 1


HOSTILE = ["<script>alert(1)</script>", "$\\frac$", "_hidden", "a" * 300, "\x00\x1b[31m", ""]


def test_a_bar_says_how_large_its_parts_are(drawn: dict[str, Figure]) -> None:
    figure = drawn["utilisation"]
    shown = texts(figure)
    assert {"frozen", "finetuned", *Shares._fields} <= set(shown)
    # A part that is too small has no number.
    numbers = [text for text in shown if text.isdecimal()]
    assert [number for number in numbers if number in ("25", "50", "88")] == ["25", "50", "88"]
    assert "3" not in numbers
    assert "finetuned: steps 88 %, input 3 %" in figure.alt


@pytest.mark.filterwarnings("error")
def test_names_cannot_break_a_figure() -> None:
    classes = tuple(HOSTILE)
    figure = confusion(scored("frozen", 60, classes))
    shown = texts(figure)
    assert {"<script>alert(1)<…", "$\\frac$", "_hidden", "a" * 17 + "…"} <= set(shown)
    assert "<script" not in figure.inline
    parsed(per_class([scored("frozen", 60, classes)], "recall").inline)
    layers = [
        LayerRecord(
            name=name, kind="Dense", output_shape=(4,), params=1, trainable=True, in_base=in_base
        )
        for name in HOSTILE
        for in_base in (True, False)
    ]
    parsed(architecture("frozen", STYLES["frozen"], layers, 1).inline)
    bars = [Bar(name, STYLES["frozen"], Shares(steps=1.0)) for name in HOSTILE]
    parsed(utilisation(bars).inline)


@pytest.mark.parametrize(
    ("seconds", "unit"), [(0, ("s", 1.0)), (119, ("s", 1.0)), (120, ("min", 60.0)),
                          (7199, ("min", 60.0)), (7200, ("h", 3600.0))],
)  # fmt: skip
def test_times_are_shown_in_a_unit_that_fits(seconds: float, unit: tuple[str, float]) -> None:
    assert formats.time_unit(seconds) == unit


def test_other_seeds_are_thin_lines_behind_the_first_ones(drawn: dict[str, Figure]) -> None:
    of_others = [
        one._replace(others=(tuple(fake_run.epoch_records(one.name, seed=1)),)) for one in LINES
    ]
    figure = curves.validation_curves(of_others, "accuracy")
    assert "Thin lines are other seeds." in figure.alt
    assert "Thin lines" not in drawn["validation_accuracy"].alt
    thin = [
        element
        for element in parsed(figure.svg).iter(f"{SVG}path")
        if "stroke-width: 0.6" in element.get("style", "")
    ]
    assert len(thin) == len(LINES)
    assert all("stroke-opacity: 0.55" in element.get("style", "") for element in thin)
