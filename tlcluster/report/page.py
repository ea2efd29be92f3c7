"""A run → the page that shows it: its figures, its sentences, and how numbers are written."""

import datetime
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2

from tlcluster.experiments import EXPERIMENTS, RECIPE, STUDY, Experiment, StudyResult
from tlcluster.report.figures.canvas import Figure
from tlcluster.report.figures.curves import time_unit
from tlcluster.report.figures.style import COLOURS, Style, styles
from tlcluster.report.metrics import SIGNIFICANT
from tlcluster.report.runs import ExperimentRun, Run

STUDY_BY_NAME: Mapping[str, StudyResult] = {result.name: result for result in STUDY}


def render_page(run: Run, drawn: Mapping[str, Figure]) -> str:
    """The page: one file that refers to nothing outside itself, all text from records escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tlcluster.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        percent=percent, points=points, number=number, p_value=p_value, duration=duration,
        gib=gib, moment=moment, listing=listing, plain=plain,
    )  # fmt: skip
    unit, seconds = time_unit(
        max((experiment.result.wall_seconds for experiment in run.experiments), default=0)
    )
    scored = [experiment for experiment in run.experiments if experiment.metrics]
    accuracies = [one.metrics.accuracy for one in scored if one.metrics]
    best = scored[accuracies.index(max(accuracies))] if scored else None
    return environment.get_template("report.html").render(
        run=run,
        manifest=run.manifest,
        experiments=run.experiments,
        scored=scored,
        best=best,
        figures={name: figure.inline for name, figure in drawn.items()},
        styles=styles(run.manifest.experiments),
        colours=COLOURS,
        study=STUDY_BY_NAME,
        differences=differences(run),
        verdict=verdict(run),
        significant=SIGNIFICANT,
        digits=accuracy_digits(run),
        time_unit=unit,
        time_seconds=seconds,
        recipe=RECIPE,
        dashes=dashes,
        workers=workers,
        median_epoch=median_epoch,
    )


# Sentences


def differences(run: Run) -> list[str]:
    """What is known to differ from the study, a sentence each."""
    manifest = run.manifest
    ours = [one for one in run.experiments if one.name in STUDY_BY_NAME]
    said = []
    if manifest.weights.kind == "random":
        said.append("The models start from random weights; the study's start from ImageNet's.")
    published = [STUDY_BY_NAME[one.name] for one in ours]
    for split, theirs in (
        ("train", {result.train_images for result in published}),
        ("test", {result.test_images for result in published}),
    ):
        images = manifest.dataset.splits.get(split)
        if images is not None and theirs and theirs != {images}:
            said.append(
                f"The {split} split has {images:,} images; the study's has "
                f"{listing(f'{count:,}' for count in sorted(theirs))}."
            )
    origins = {origin.name for one in ours if one.metrics for origin in one.metrics.per_origin}
    if origins == {"cifar"}:
        said.append(
            "Every test image comes from CIFAR-10, whose images are easier than the ImageNet "
            "ones that CINIC-10 adds and the study had."
        )
    seeds = {result.seed for result in published}
    if seeds and seeds != {manifest.seed}:
        said.append(
            f"The seed is {manifest.seed}; the study's is {listing(str(s) for s in sorted(seeds))}."
        )
    changes = list(_recipe_changes([one.config.experiment for one in ours if one.config]))
    if changes:
        said.append(f"The recipe (profile {manifest.profile}) differs: {'; '.join(changes)}.")
    return said


def _recipe_changes(experiments: Sequence[Experiment]) -> Iterable[str]:
    """`epochs at most 8 instead of 55 (frozen, augmented)`, a field and a pair of values each."""
    for field, words in RECIPE.items():
        changed: dict[tuple[Any, Any], list[str]] = {}
        for experiment in experiments:
            ours, theirs = getattr(experiment, field), getattr(EXPERIMENTS[experiment.name], field)
            if ours != theirs:
                changed.setdefault((ours, theirs), []).append(experiment.name)
        for (ours, theirs), names in changed.items():
            where = "" if len(names) == len(experiments) > 1 else f" ({', '.join(names)})"
            yield f"{words} {plain(ours)} instead of {plain(theirs)}{where}"


def verdict(run: Run) -> str:
    """Which experiments are better than which, in words."""
    if not run.comparisons:
        return ""
    better: dict[str, list[str]] = {}
    level: list[str] = []
    for one in run.comparisons:
        if one.p_holm >= SIGNIFICANT:
            level.append(f"between {one.a} and {one.b}")
        else:
            winner, loser = (one.a, one.b) if one.difference > 0 else (one.b, one.a)
            better.setdefault(winner, []).append(loser)
    clauses = [
        f"{winner} is better than {listing(losers)}"
        for winner, losers in sorted(better.items(), key=lambda item: -len(item[1]))
    ]
    said = f"At the 5 % level, {'; '.join(clauses)}. " if clauses else ""
    if level:
        differ = "difference" if len(level) == 1 else "differences"
        said += f"The {differ} {listing(level)} may be chance."
    return said.strip()


def workers(experiment: ExperimentRun) -> dict[str, str]:
    """Hosts and devices of an experiment's workers, each named once."""
    records = experiment.result.workers
    devices = [worker.device for worker in records]
    return {
        "hosts": ", ".join(dict.fromkeys(worker.host for worker in records)),
        "devices": ", ".join(
            f"{devices.count(device)} × {device}" for device in dict.fromkeys(devices)
        ),
    }


def median_epoch(experiment: ExperimentRun) -> float | None:
    """Seconds."""
    seconds = [record.seconds for record in experiment.epochs]
    return statistics.median(seconds) if seconds else None


def dashes(style: Style, width: float) -> str:
    """An experiment's dashes for a line of this width, as SVG takes them."""
    return " ".join(f"{float(length) * width:g}" for length in style.dashes.split())


# Numbers


def accuracy_digits(run: Run) -> int:
    """Decimals of a per cent: two tell nothing where ten thousand images were not tested."""
    tested = [one.metrics.images for one in run.experiments if one.metrics]
    return 2 if tested and min(tested) >= 10_000 else 1


def percent(fraction: float, digits: int) -> str:
    return f"{100 * fraction:.{digits}f}"


def points(difference: float, digits: int) -> str:
    """A difference of two fractions in percentage points, with its sign unless it is 0."""
    rounded = round(100 * difference, digits)
    return f"{rounded:+.{digits}f}" if rounded else f"{0:.{digits}f}"


def number(value: float | None, digits: int = 0) -> str:
    """With separated thousands; nothing where there is no number."""
    return "" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    """In the two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def gib(size: int) -> str:
    return f"{size / 2**30:,.0f}"


def moment(iso: str) -> str:
    """`2026-04-12T07:15:00Z` → `2026-04-12 07:15 UTC`; what is no time stays as it is."""
    try:
        when = datetime.datetime.fromisoformat(iso)
    except ValueError:
        return iso
    return f"{when:%Y-%m-%d %H:%M} UTC"


def listing(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    every = list(words)
    return " and ".join(filter(None, [", ".join(every[:-1]), *every[-1:]]))


def plain(value: Any) -> str:
    """A setting's value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else f"{value}"
