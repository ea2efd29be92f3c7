"""The page of a search: what it tried, what it found, how sure that is."""

from collections.abc import Mapping
from typing import NamedTuple

from tlcluster.experiments import Experiment
from tlcluster.report.figures.canvas import Figure
from tlcluster.report.figures.style import COLOURS, Style, styles
from tlcluster.report.formats import duration, moment, percent
from tlcluster.report.page import page_environment
from tlcluster.storage.protocol import Store
from tlcluster.tuning.figures import progress
from tlcluster.tuning.importance import importances
from tlcluster.tuning.records import TrialRecord, TuningManifest
from tlcluster.tuning.space import Space
from tlcluster.tuning.table import words
from tlcluster.tuning.trials import RECIPE_TRIAL, Score, scores, searched

FOLDER = "report"
PAGE = f"{FOLDER}/index.html"

TOP = 10
"""Trials in the table."""

Trials = Mapping[int, TrialRecord]


class Shown(NamedTuple):
    """What the page shows of one experiment."""

    experiment: Experiment
    space: Mapping[str, str]
    """Field → its possible values, in words."""
    figure: Figure | None
    top: list[tuple[TrialRecord, str]]
    """The best trials with their recipes in words."""
    scores: list[tuple[Score, str]]
    """The finalists with their recipes in words."""
    own: Score | None
    """The profile's own recipe with several seeds."""
    importance: Mapping[str, float]
    trials: int
    failed: list[TrialRecord]
    worker_seconds: float
    gpu_seconds: float


def write_page(
    folder: Store,
    manifest: TuningManifest,
    trials: Mapping[str, Trials],
    spaces: Mapping[str, Space],
) -> None:
    """Write the page of a search and its figures; the page comes last.

    Args:
        folder: of the search.
        manifest: of it.
        trials: experiment → its trials by number.
        spaces: experiment → what was searched.
    """
    looks = styles(list(trials))
    shown = [
        shown_experiment(
            one.experiment,
            one.space,
            trials[one.experiment.name],
            spaces[one.experiment.name],
            looks[one.experiment.name],
        )
        for one in manifest.searches
    ]
    for one in shown:
        if one.figure:
            folder.put(f"{FOLDER}/{one.figure.name}.svg", one.figure.svg)
            folder.put(f"{FOLDER}/{one.figure.name}.png", one.figure.png)
    folder.put(PAGE, render_page(manifest, shown).encode())


def shown_experiment(
    experiment: Experiment, space: Mapping[str, str], trials: Trials, values: Space, style: Style
) -> Shown:
    """What the page shows of one experiment."""
    search = [one for one in trials.values() if one.role != "finalist"]
    scored = [one for one in search if one.best is not None]
    best = sorted(scored, key=lambda one: (-(one.best or 0.0), one.number))[:TOP]
    found = scores(trials)
    return Shown(
        experiment,
        space,
        progress(experiment.name, style, trials) if scored else None,
        [(one, words(experiment, one)) for one in best],
        [(score, words(experiment, trials[score.candidate])) for score in found],
        next((score for score in found if score.candidate == RECIPE_TRIAL), None),
        importances(values, trials),
        searched(trials),
        [one for one in trials.values() if one.status == "failed"],
        sum(one.worker_seconds for one in trials.values()),
        sum(one.gpu_seconds for one in trials.values()),
    )


def render_page(manifest: TuningManifest, shown: list[Shown]) -> str:
    """The page: one file that refers to nothing outside itself, all text escaped."""
    # The head and the style sheet are the report's.
    environment = page_environment("tlcluster.tuning", "tlcluster.report")
    environment.filters.update(percent=percent, duration=duration, moment=moment)
    return environment.get_template("tuning.html").render(
        manifest=manifest, shown=shown, colours=COLOURS
    )
