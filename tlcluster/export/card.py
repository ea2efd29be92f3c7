"""The model card: what a model is, what it was made from, how good it is and what it is not for.

Markdown. Names that a person chose are shown as code, so that none of them is a heading or a link.
"""

import importlib.resources
from collections.abc import Sequence

import jinja2

from tlcluster import cinic10
from tlcluster.backbones import BACKBONES
from tlcluster.experiments import OPTIONS, RECIPE, Experiment
from tlcluster.export.facts import IMAGES, PROBABILITIES, RESIZING
from tlcluster.export.finished import Finished
from tlcluster.export.score import HEADING, Score, cells, explained
from tlcluster.records import RunManifest
from tlcluster.report.formats import number, percent, plain, shorten
from tlcluster.report.metrics import ClassMetrics, Metrics, evaluate
from tlcluster.report.seeds.proportions import Interval

CARD = "model-card.md"

MOST_CLASSES = 30
"""With more classes, the card lists the worst and the best half of so many."""

_TEMPLATE = importlib.resources.files("tlcluster.export") / "templates" / CARD

_WEIGHTS = {
    "imagenet": "the published ImageNet weights",
    "imagenet-8bit": "an 8-bit copy of the ImageNet weights, close to the published ones",
    "random": "random weights",
}

_CC_BY = "[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/)"
_OF_IMAGENET = "ImageNet, whose terms of access name non-commercial research and education"

_VGG = (
    "VGG16 and VGG19: Karen Simonyan and Andrew Zisserman, arXiv:1409.1556. Weights published by "
    f"the Visual Geometry Group, University of Oxford, under {_CC_BY}; trained on {_OF_IMAGENET}."
)
_OTHER_BASE = (
    "The weights that training started from are those that Keras Applications publishes; see there "
    f"for their licence. They were trained on {_OF_IMAGENET}."
)
_CINIC = (
    "CINIC-10: Darlow, Crowley, Antoniou and Storkey, arXiv:1810.03505, "
    f"https://doi.org/10.7488/ds/2448, published under {_CC_BY}. Its images come from CIFAR-10 and "
    f"from {_OF_IMAGENET}."
)
_OTHER_DATA = (
    "The licence of the data set is not known to the program that wrote this card: add it here."
)


def card(finished: Finished, scores: Sequence[Score], image_shape: tuple[int, int, int]) -> str:
    """The card of an export.

    Args:
        finished: the training.
        scores: of the exported files, one at least.
        image_shape: (height, width, channels) of the model's input.
    """
    config, manifest = finished.config, finished.manifest
    experiment, classes = config.experiment, manifest.dataset.classes
    of_cinic = manifest.dataset.name == cinic10.NAME
    metrics = evaluate(finished.predictions, classes, origins=of_cinic)
    weights = manifest.base_weights.get(experiment.base)
    height, width, _ = image_shape
    environment = jinja2.Environment(  # noqa: S701 - Markdown; names are shown as code
        keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "code": _code,
        "interval": _interval,
        "number": number,
        "percent": lambda fraction: percent(fraction, 2),
    }
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        finished=finished,
        config=config,
        manifest=manifest,
        result=finished.result,
        experiment=experiment,
        classes=classes,
        metrics=metrics,
        scores=scores,
        base=BACKBONES[experiment.base].title,
        images=IMAGES,
        probabilities=PROBABILITIES,
        resizing=RESIZING,
        height=height,
        width=width,
        files=_table((*HEADING[:-1], "beside the training"), [cells(score) for score in scores]),
        compared_with=explained(scores[0]),
        origins=_origins(metrics),
        few_classes=MOST_CLASSES // 2 if len(classes) > MOST_CLASSES else 0,
        per_class=_per_class(metrics.per_class),
        weights=_WEIGHTS[weights.kind] if weights else "",
        recipe=_recipe(experiment),
        onnx=next((score.file for score in scores if score.file.endswith(".onnx")), None),
        random=weights is not None and weights.kind == "random",
        licences=_licences(manifest, experiment.base),
    )


def _origins(metrics: Metrics) -> str:
    rows = [
        (one.name, number(one.support), percent(one.accuracy, 2), _interval(one.interval))
        for one in metrics.per_origin
    ]
    heading = ("origin of the images", "images", "accuracy, %", "95 % interval")
    return _table(heading, rows) if rows else ""


def _per_class(per_class: Sequence[ClassMetrics]) -> str:
    shown = list(per_class)
    if len(shown) > MOST_CLASSES:
        order = sorted(shown, key=lambda one: one.f1)
        shown = [*order[: MOST_CLASSES // 2], *order[-(MOST_CLASSES // 2) :]]
    rows = [
        (
            _code(one.name),
            number(one.support),
            *(f"{ratio:.3f}" for ratio in (one.precision, one.recall, one.f1)),
        )
        for one in shown
    ]
    return _table(("class", "test images", "precision", "recall", "F1"), rows)


def _recipe(experiment: Experiment) -> str:
    """The fields of the recipe; options only if they are not at their default."""
    rows = [
        (label, plain(getattr(experiment, field)))
        for field, label in RECIPE.items()
        if field not in OPTIONS or getattr(experiment, field) != OPTIONS[field]
    ]
    return _table(("recipe", "value"), rows)


def _licences(manifest: RunManifest, base: str) -> list[str]:
    weights = manifest.base_weights.get(base)
    lines = [_CINIC if manifest.dataset.name == cinic10.NAME else _OTHER_DATA]
    if weights is None or weights.kind != "random":
        lines.append(_VGG if base in ("vgg16", "vgg19") else _OTHER_BASE)
    return lines


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _interval(interval: Interval) -> str:
    return f"{percent(interval.low, 2)}–{percent(interval.high, 2)}"


def _code(text: str) -> str:
    """Text as Markdown code: on one line, without the mark that would end it."""
    inside = shorten(text, 100).replace("`", "'").strip()
    return f"`{inside}`" if inside else "(none)"
