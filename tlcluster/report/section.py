"""What the page's section on calibration and mistakes shows."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tlcluster.report.calibration import BINS
from tlcluster.report.formats import number, percent, points, shorten
from tlcluster.report.metrics import Metrics
from tlcluster.report.pictures import Pictures
from tlcluster.report.single import origin_in
from tlcluster.report.trained import ExperimentRun, Run


class CalibrationRow(NamedTuple):
    """One experiment in the table; means over the seeds that were tested."""

    experiment: ExperimentRun
    cells: tuple[str, ...]
    """Accuracy, confidence, their difference, error, Brier score and loss; empty if unknown."""


class OriginRow(NamedTuple):
    """One class in the table of mistakes by origin."""

    name: str
    images: tuple[int, ...]
    """Of each origin."""
    shares: tuple[str, ...]
    """Experiment by experiment, of each origin: per cent of the images; empty without images."""


def mistakes_section(
    run: Run, pictures: Pictures, listed: Sequence[int], digits: int
) -> dict[str, Any]:
    """The values that the template `mistakes.html` needs besides those of the page.

    Args:
        run: the run.
        pictures: of its gallery.
        listed: positions of the classes that are shown one by one.
        digits: decimals of a per cent.
    """
    by_name = {one.name: one for one in run.experiments}
    shown = [by_name[name] for name in run.gallery.shown]
    in_page = [one.image for one in run.gallery.occurrences if one.image in pictures.png]
    return {
        "gallery": run.gallery,
        "gallery_of": shown,
        "pictures": pictures,
        "pictures_shown": len(in_page),
        "pictures_kb": number(sum(len(pictures.png[image]) for image in in_page) / 1000),
        "bins": BINS,
        "calibrated": [
            CalibrationRow(one, _cells(one, digits)) for one in run.experiments if one.tested
        ],
        "origin_names": [of.name for of in shown[0].metrics.per_origin]
        if shown and shown[0].metrics
        else [],
        "origin_rows": _origin_rows(run, shown, listed),
        "origin_in": lambda source: origin_in(run, source),
        "class_name": lambda position: shorten(run.manifest.dataset.classes[position], 40),
        "shorten": shorten,
        "sure": lambda probability: f"{percent(probability, 1)}\N{NO-BREAK SPACE}%",
    }


def _cells(one: ExperimentRun, digits: int) -> tuple[str, ...]:
    accuracy = one.mean(lambda of: of.accuracy)
    confidence = one.mean(lambda of: of.calibration.confidence)
    gap = ""
    if accuracy is not None and confidence is not None and math.isfinite(confidence):
        gap = points(confidence - accuracy, digits)

    def shown(measure: Callable[[Metrics], float], factor: float, places: int) -> str:
        mean, spread = one.mean(measure), one.spread(measure)
        said = "" if mean is None else number(factor * mean, places)
        return said if spread is None else f"{said} ± {number(factor * spread, places)}"

    return (
        shown(lambda of: of.accuracy, 100, digits),
        shown(lambda of: of.calibration.confidence, 100, digits),
        gap,
        shown(lambda of: of.calibration.error, 100, digits),
        shown(lambda of: of.calibration.brier, 1, 3),
        shown(lambda of: of.loss, 1, 3),
    )


def _origin_rows(
    run: Run, shown: Sequence[ExperimentRun], listed: Sequence[int]
) -> list[OriginRow]:
    tested = [one.metrics.per_origin for one in shown if one.metrics]
    if not tested or not tested[0]:
        return []
    return [
        OriginRow(
            shorten(run.manifest.dataset.classes[position], 40),
            tuple(origin.of_class[position] for origin in tested[0]),
            tuple(
                percent(origin.wrong[position] / images, 1)
                if (images := origin.of_class[position])
                else ""
                for origins in tested
                for origin in origins
            ),
        )
        for position in listed
    ]
