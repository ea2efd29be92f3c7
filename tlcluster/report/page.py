"""A run → the page that shows it."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

import jinja2

from tlcluster import cinic10
from tlcluster.experiments import OPTIONS, RECIPE
from tlcluster.records import RunManifest
from tlcluster.report.classes import MANY_CLASSES, listed_classes, most_confused
from tlcluster.report.columns import (
    COLUMNS,
    GROUPS,
    STUDY,
    TEST,
    View,
    page_columns,
    replicate_rows,
    rows,
    text,
)
from tlcluster.report.cost_table import cost_columns, energy_note
from tlcluster.report.figures.canvas import Figure
from tlcluster.report.figures.style import COLOURS, Style, styles
from tlcluster.report.formats import (
    duration,
    gib,
    listing,
    moment,
    number,
    p_value,
    percent,
    plain,
    points,
    time_unit,
)  # fmt: skip
from tlcluster.report.looked import looked
from tlcluster.report.pictures import NONE, Pictures
from tlcluster.report.section import mistakes_section
from tlcluster.report.seeds.proportions import SIGNIFICANT
from tlcluster.report.sentences import (
    MANY_EXPERIMENTS,
    differences,
    leaked,
    limits,
    replications,
    subject,
    verdict,
)
from tlcluster.report.study import comparable
from tlcluster.report.trained import ExperimentRun, Run

MEASURES = (("precision", "P"), ("recall", "R"), ("f1", "F1"))
"""Of a class: the field of its metrics, and the heading of its column."""

MANY_MEASURES = 4
"""With more experiments than this, the table of classes has F1 only."""


def page_environment(*packages: str) -> jinja2.Environment:
    """Templates of these packages, the first that has one; every text is escaped."""
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package) for package in packages]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render_page(run: Run, drawn: Mapping[str, Figure], pictures: Pictures = NONE) -> str:
    """The page: one file that refers to nothing outside itself, all text from records escaped.

    Args:
        run: what it is about.
        drawn: its figures, by their names.
        pictures: of the images in the run's gallery, as far as they are known.
    """
    environment = page_environment("tlcluster.report")
    replicates = [one for experiment in run.experiments for one in experiment.replicates]
    environment.filters.update(
        percent=percent, points=points, number=number, p_value=p_value, duration=duration,
        gib=gib, moment=moment, listing=listing, plain=plain,
    )  # fmt: skip
    longest = max((one.result.wall_seconds for one in replicates), default=0)
    view = View(accuracy_digits(run), *time_unit(longest))
    scored = [experiment for experiment in run.experiments if experiment.metrics]
    of_first = [one.metrics for one in scored if one.metrics]
    compared = [one for one in run.experiments if one.accuracy]
    means = [one.accuracy.mean for one in compared if one.accuracy]
    best = compared[means.index(max(means))] if compared else None
    columns = page_columns(run)
    of_seeds = [column for column in page_columns(run, COLUMNS) if column.group != STUDY]
    study = comparable(run)
    listed = listed_classes(of_first) if of_first else []
    return environment.get_template("report.html").render(
        run=run,
        manifest=run.manifest,
        experiments=run.experiments,
        scored=scored,
        compared=compared,
        tested=[one.metrics for one in replicates if one.metrics],
        best=best,
        leaked=leaked(run),
        limits=limits(run),
        covered=listing({one.accuracy.covers: None for one in compared if one.accuracy}),
        figures={name: figure.inline for name, figure in drawn.items()},
        styles=styles(run.manifest.experiments),
        colours=COLOURS,
        study=study,
        subject=subject(run),
        columns=columns,
        groups=[(group, sum(column.group == group for column in columns)) for group in GROUPS],
        rows=rows(run),
        cost_columns=cost_columns(run),
        energy_note=energy_note(run),
        replicates=replicates,
        two=any(len(one.tested) == 2 for one in compared),
        seed_columns=of_seeds,
        seed_tested=sum(column.group == TEST for column in of_seeds),
        seed_rows=replicate_rows(run),
        cell=lambda column, row: text(column, row, view),
        cinic=run.manifest.dataset.name == cinic10.NAME,
        many=len(run.manifest.dataset.classes) > MANY_CLASSES,
        measures=MEASURES if len(scored) <= MANY_MEASURES else MEASURES[-1:],
        listed=listed,
        confused=most_confused(of_first) if of_first else [],
        differences=differences(run),
        replications=replications(run),
        spent=sum(one.result.wall_seconds for one in replicates),
        pairs=len(run.contrasts),
        smallest=least_and_most([one.smallest for one in run.contrasts], view.digits),
        verdict=verdict(run),
        looked=looked(run.manifest.looks) if run.manifest.looks else "",
        significant=SIGNIFICANT,
        many_experiments=MANY_EXPERIMENTS,
        digits=view.digits,
        time_unit=view.unit,
        time_seconds=view.seconds,
        recipe=recipe_fields(run),
        settings=settings(run.manifest),
        dashes=dashes,
        workers=workers,
        median_epoch=median_epoch,
        **mistakes_section(run, pictures, listed, view.digits),
    )


def least_and_most(differences: Sequence[float], digits: int) -> str:
    """In percentage points: `1.2 to 1.5`, or one number if they are the same; "" if none."""
    if not differences:
        return ""
    return " to ".join(
        dict.fromkeys(percent(end, digits) for end in (min(differences), max(differences)))
    )


def recipe_fields(run: Run) -> dict[str, str]:
    """Field of the recipe → its label, without options that no experiment uses."""
    recipes = [one.config.experiment for one in run.experiments if one.config]
    return {
        field: label
        for field, label in RECIPE.items()
        if field not in OPTIONS or any(getattr(one, field) != OPTIONS[field] for one in recipes)
    }


def settings(manifest: RunManifest) -> dict[str, object]:
    """The settings that decide the results, without options that have their default."""
    return {
        name: value
        for name, value in manifest.settings.items()
        if (field := name.rpartition(".")[2]) not in OPTIONS or value != OPTIONS[field]
    }


def workers(experiment: ExperimentRun) -> dict[str, str]:
    """Hosts and devices of an experiment's workers, each named once."""
    records = experiment.result.workers
    devices = Counter(worker.device for worker in records)
    return {
        "hosts": ", ".join(dict.fromkeys(worker.host for worker in records)),
        "devices": ", ".join(f"{count} × {device}" for device, count in devices.items()),
    }


def median_epoch(experiment: ExperimentRun) -> float | None:
    """Seconds."""
    seconds = [record.seconds for record in experiment.epochs]
    return statistics.median(seconds) if seconds else None


def dashes(style: Style, width: float) -> str:
    """An experiment's dashes for a line of this width, as SVG takes them."""
    return " ".join(f"{float(length) * width:g}" for length in style.dashes.split())


def accuracy_digits(run: Run) -> int:
    """Decimals of a per cent: below ten thousand test images the second one means nothing."""
    tested = [
        metrics.images
        for experiment in run.experiments
        for one in experiment.replicates
        if (metrics := one.metrics)
    ]
    return 2 if tested and min(tested) >= 10_000 else 1
