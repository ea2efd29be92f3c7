"""The report's tables for a paper, as values: `latex` and `markdown` write them."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tlcluster.report.classes import MANY_CLASSES
from tlcluster.report.columns import replicate_rows
from tlcluster.report.formats import number, p_value, percent, points, shorten
from tlcluster.report.metrics import Metrics
from tlcluster.report.page import accuracy_digits
from tlcluster.report.seeds.contrast import Contrast
from tlcluster.report.seeds.proportions import Interval
from tlcluster.report.sentences import limits, subject
from tlcluster.report.study import comparable
from tlcluster.report.trained import ExperimentRun, Run


class Number(NamedTuple):
    """A number that a text can refer to."""

    name: str
    """Letters only, unique in the run."""
    text: str
    """As the page shows it."""


Cell = tuple[Number | str, ...]
"""What a cell holds, from left to right; empty if it is unknown."""


class Table(NamedTuple):
    """One table."""

    label: str
    caption: str
    heading: tuple[str, ...]
    words: int
    """The first columns, which hold text and are aligned at the left."""
    rows: tuple[tuple[Cell, ...], ...]


class Paper(NamedTuple):
    """All that a paper can take from a run."""

    tables: tuple[Table, ...]
    more: tuple[Number, ...]
    """Numbers that are in no table."""

    @property
    def numbers(self) -> Iterator[Number]:
        """Each number once."""
        for table in self.tables:
            for row in table.rows:
                for cell in row:
                    yield from (part for part in cell if isinstance(part, Number))
        yield from self.more


def paper(run: Run) -> Paper:
    """The tables of a run, of what was tested, and other numbers of it."""
    names = _Names()
    compared = [one for one in run.experiments if one.accuracy]
    tables = [_results(run, compared, names)] if compared else []
    if run.contrasts:
        tables.append(_comparisons(run, names))
    if any(one.origins for one in compared):
        tables.append(_origins(run, compared, names))
    if run.several and compared:
        tables.append(_seeds(run, names))
    scored = [one for one in compared if one.metrics]
    if scored and len(run.manifest.dataset.classes) <= MANY_CLASSES:
        tables.append(_classes(run, scored, names))
    return Paper(tuple(tables), tuple(_more(run, compared, names)))


_DIGITS = dict(
    zip(
        "0123456789",
        ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine"),
        strict=True,
    )
)


class _Names:
    """Gives numbers their names."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def __call__(self, text: str, *words: str) -> Cell:
        """A cell with one number, named after these words; an empty cell if there is no text."""
        if not text:
            return ()
        base = name = "tlc" + "".join(map(_letters, words))
        # Experiments may be called `a-1` and `a1`.
        while name in self._taken:
            name = base + "Other" + name.removeprefix(base)
        self._taken.add(name)
        return (Number(name, text),)


def _letters(word: str) -> str:
    """`fine-tuned_2` → `FineTunedTwo`."""
    parts = re.split(r"[^A-Za-z0-9]+", word)
    capital = "".join(part[:1].upper() + part[1:] for part in parts)
    return "".join(_DIGITS.get(letter, letter) for letter in capital)


def _between(low: Cell, word: str, high: Cell) -> Cell:
    return (*low, word, *high) if low and high else (*low, *high)


def _interval(
    names: _Names, show: Callable[[float], str], interval: Interval, word: str, *words: str
) -> Cell:
    low, high = (show(bound) for bound in interval)
    return _between(names(low, *words, "low"), word, names(high, *words, "high"))


def _results(run: Run, compared: Sequence[ExperimentRun], names: _Names) -> Table:
    study, digits = comparable(run), accuracy_digits(run)

    def row(one: ExperimentRun) -> Iterator[Cell]:
        yield (one.name,)
        of = one.accuracy
        if of is None:
            return
        if run.several:
            yield names(number(len(of.seeds)), one.name, "seeds")
        spread = "" if of.spread is None else percent(of.spread, digits)
        accuracy = names(percent(of.mean, digits), one.name, "accuracy")
        yield _between(accuracy, " ± ", names(spread, one.name, "accuracy", "sd"))
        yield _interval(names, lambda p: percent(p, digits), of.interval, "–", one.name, "accuracy")
        yield names(_mean(one, lambda of: of.f1_macro), one.name, "f1")
        yield names(_mean(one, lambda of: of.loss), one.name, "loss")
        if study:
            theirs = study.get(one.name)
            yield names(percent(theirs.accuracy, 2) if theirs else "", one.name, "study accuracy")
        yield _epochs(names, [one.epochs_run for one in one.tested], one.name, "epochs")
        parameters = one.config.trainable_params if one.config else None
        yield names(number(parameters), one.name, "trainable parameters")

    seeds = "; mean ± standard deviation of the seeds" if run.several else ""
    return Table(
        "results",
        f"{subject(run)}: accuracy on the test images in per cent{seeds}, with its 95 % interval. "
        + limits(run),
        (
            "Experiment", *(["Seeds"] if run.several else []), "Accuracy", "95 % interval",
            "F1", "Loss", *(["Study"] if study else []), "Epochs", "Parameters",
        ),
        1,
        tuple(tuple(row(one)) for one in compared),
    )  # fmt: skip


def _mean(one: ExperimentRun, measure: Callable[[Metrics], float]) -> str:
    """A measure over the seeds that were tested."""
    return number(one.mean(measure), 3)


def _epochs(names: _Names, epochs: Sequence[int], *words: str) -> Cell:
    """The least and the greatest, if they are not the same."""
    if len(set(epochs)) < 2:
        return names(number(epochs[0]) if epochs else "", *words)
    low, high = number(min(epochs)), number(max(epochs))
    return _between(names(low, *words, "low"), "–", names(high, *words, "high"))


def _comparisons(run: Run, names: _Names) -> Table:
    digits = accuracy_digits(run)

    def row(one: Contrast) -> Iterator[Cell]:
        pair = (one.a, "versus", one.b)
        yield (one.a,)
        yield (one.b,)
        yield (one.test,)
        yield names(points(one.difference, digits), *pair, "difference")
        yield _interval(
            names, lambda p: points(p, digits), one.interval, " to ", *pair, "difference"
        )
        yield names(p_value(one.p_value), *pair, "p")
        yield names(p_value(one.p_holm), *pair, "p adjusted")
        yield names(number(one.effect, 2), *pair, "effect")
        if run.several:
            better = "" if one.probability is None else percent(one.probability, 1)
            yield names(better, *pair, "better")
        yield names(percent(one.smallest, digits), *pair, "smallest difference")

    better = (
        "; the probability in per cent that a new training of A is better than a new one of B"
        if run.several
        else ""
    )
    return Table(
        "comparisons",
        "Differences of accuracy in percentage points, with 95 % intervals; p of McNemar's test "
        "(exact or chi-square) or of Student's t, and adjusted by Holm's method; Cohen's h"
        f"{better}; and the smallest difference that would have been found with probability 80 %.",
        (
            "A", "B", "Test", "A − B", "95 % interval", "p", "p, adjusted", "h",
            *(["A better"] if run.several else []), "Smallest",
        ),
        3,
        tuple(tuple(row(one)) for one in run.contrasts),
    )  # fmt: skip


def _origins(run: Run, compared: Sequence[ExperimentRun], names: _Names) -> Table:
    digits = accuracy_digits(run)
    every = list(dict.fromkeys(origin for one in compared for origin in one.origins))

    def row(one: ExperimentRun) -> Iterator[Cell]:
        yield (one.name,)
        for origin in every:
            of = one.origins[origin]
            yield names(percent(of.mean, digits), one.name, origin, "accuracy")
            yield _interval(
                names, lambda p: percent(p, digits), of.interval, "–", one.name, origin, "accuracy"
            )

    return Table(
        "origins",
        "Accuracy by the origin of the images in CINIC-10, in per cent, with 95 % intervals.",
        ("Experiment", *(head for origin in every for head in (origin, "95 % interval"))),
        1,
        tuple(tuple(row(one)) for one in compared),
    )


def _seeds(run: Run, names: _Names) -> Table:
    digits = accuracy_digits(run)
    rows = []
    for experiment, replicate, _ in replicate_rows(run):
        of, words = replicate.metrics, (experiment.name, f"seed {replicate.seed}")
        cells: list[Cell] = [(experiment.name,), (f"{replicate.seed}",), (replicate.status,)]
        if of is None:
            cells += [()] * 4
        else:
            cells += [
                names(percent(of.accuracy, digits), *words, "accuracy"),
                _interval(
                    names, lambda p: percent(p, digits), of.interval, "–", *words, "accuracy"
                ),
                names(number(of.f1_macro, 3), *words, "f1"),
                names(number(of.loss, 3), *words, "loss"),
            ]
        cells.append(names(number(replicate.result.best_epoch), *words, "best epoch"))
        rows.append(tuple(cells))
    return Table(
        "seeds",
        "Each seed: accuracy in per cent, with the 95 % interval that covers the choice of the "
        "test images alone.",
        (
            "Experiment", "Seed", "Status", "Accuracy", "95 % interval", "F1", "Loss", "Best epoch",
        ),
        3,
        tuple(rows),
    )  # fmt: skip


def _classes(run: Run, scored: Sequence[ExperimentRun], names: _Names) -> Table:
    rows = []
    for position, of_class in enumerate(run.manifest.dataset.classes):
        cells: list[Cell] = [(shorten(of_class, 40),)]
        for one in scored:
            if one.metrics:
                f1 = number(one.metrics.per_class[position].f1, 3)
                cells.append(names(f1, one.name, f"class {position + 1}", "f1"))
        rows.append(tuple(cells))
    first = f" Seed {run.manifest.seed}." if run.several else ""
    return Table(
        "classes",
        f"F1 of every class.{first}",
        ("Class", *(one.name for one in scored)),
        1,
        tuple(rows),
    )


_MORE: tuple[tuple[Callable[[Metrics], float], str], ...] = (
    (lambda of: of.precision_macro, "precision"),
    (lambda of: of.recall_macro, "recall"),
    (lambda of: of.calibration.error, "ece"),
    (lambda of: of.calibration.brier, "brier"),
)
"""Measures that are in no table."""


def _more(run: Run, compared: Sequence[ExperimentRun], names: _Names) -> Iterator[Number]:
    manifest = run.manifest

    def one(text: str, *words: str) -> Iterator[Number]:
        yield from (part for part in names(text, *words) if isinstance(part, Number))

    for split in ("train", "valid", "test"):
        yield from one(number(manifest.dataset.splits.get(split)), split, "images")
    yield from one(number(len(manifest.all_seeds)), "seeds")
    yield from one(number(len(run.experiments)), "experiments")
    yield from one(number(len(manifest.dataset.classes)), "classes")
    yield from one(number(manifest.wall_seconds / 3600, 2), "hours")
    for experiment in compared:
        of = experiment.replication
        spent = sum(replicate.result.wall_seconds for replicate in experiment.replicates)
        yield from one(number(spent / 3600, 2), experiment.name, "hours")
        for measure, what in _MORE:
            yield from one(_mean(experiment, measure), experiment.name, what)
        if not run.several:
            best = experiment.result.best_epoch
            yield from one(number(best), experiment.name, "best epoch")
        if of and of.interval:
            low, high = (percent(bound, 2) for bound in of.interval)
            yield from one(low, experiment.name, "prediction low")
            yield from one(high, experiment.name, "prediction high")
