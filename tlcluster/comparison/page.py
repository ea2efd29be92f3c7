"""The page of a comparison: one file whose only script sorts and filters its tables."""

import base64
import hashlib
import math
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from tlcluster.comparison.apart import settings_apart
from tlcluster.comparison.gather import Entry, Gathered
from tlcluster.comparison.pairs import not_paired, pairs, verdict
from tlcluster.comparison.rows import DATA, PAGE, Row, all_rows, worker_seconds
from tlcluster.report.columns import View
from tlcluster.report.cost import hours
from tlcluster.report.figures.style import COLOURS, styles
from tlcluster.report.formats import (
    moment,
    number,
    p_value,
    percent,
    plain,
    points,
    shorten,
    time_unit,
)
from tlcluster.report.page import accuracy_digits, dashes, page_environment
from tlcluster.report.seeds.proportions import SIGNIFICANT


class Script(NamedTuple):
    """The script of the page, and how its Content-Security-Policy names it: it allows no other."""

    text: str
    digest: str


def script() -> Script:
    """The script of the page."""
    text = (resources.files("tlcluster.comparison") / "templates/compare.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Script(text, f"sha256-{digest}")


class Axis(NamedTuple):
    """The accuracies that the bars of the table span, in whole per cents."""

    low: int
    high: int

    def at(self, accuracy: float) -> str:
        """Where an accuracy is on a bar of `BAR` units."""
        return f"{BAR * (100 * accuracy - self.low) / (self.high - self.low):.1f}"


BAR = 120
"""Length of the axis, in the units of its SVG."""


def axis(rows: Sequence[Row]) -> Axis:
    """The axis that all intervals of the rows fit on."""
    found = [row.experiment.accuracy.interval for row in rows if row.experiment.accuracy]
    low = math.floor(100 * min(one.low for one in found))
    return Axis(low, max(math.ceil(100 * max(one.high for one in found)), low + 1))


def render_page(gathered: Gathered, command: str) -> str:
    """The page: it refers to nothing outside itself, and all text from records is escaped."""
    # The head, the style sheet and the form of tables are the report's.
    environment = page_environment("tlcluster.comparison", "tlcluster.report")
    environment.filters.update(
        moment=moment, number=number, p_value=p_value, percent=percent, plain=plain, points=points,
        shorten=shorten,
    )  # fmt: skip
    entries, rows, found = gathered.entries, all_rows(gathered), pairs(gathered)
    digits = min(accuracy_digits(one.run) for one in entries)
    run_unit, run_seconds = time_unit(max(one.run.manifest.wall_seconds for one in entries))
    view = View(digits, *time_unit(max(row.wall_seconds for row in rows)))
    return environment.get_template("compare.html").render(
        script=script(),
        colours=COLOURS,
        styles=styles(list(dict.fromkeys(row.experiment.name for row in rows))),
        dashes=dashes,
        entries=entries,
        left_out=gathered.left_out,
        groups=gathered.groups,
        columns=PAGE if len(gathered.groups) == 1 else (DATA, *PAGE),
        rows=rows,
        best=rows[0],
        axis=axis(rows),
        bar=BAR,
        two=any(len(row.experiment.tested) == 2 for row in rows),
        view=view,
        run_unit=run_unit,
        run_seconds=run_seconds,
        run_hours=run_hours,
        apart=settings_apart(entries),
        pairs=found,
        not_paired=not_paired(gathered),
        verdict=verdict(found, digits),
        significant=SIGNIFICANT,
        command=command,
    )


def run_hours(entry: Entry) -> float | None:
    """Worker-hours of all experiments of a run; None if those of one are not known."""
    every = [worker_seconds(one) for one in entry.run.experiments]
    known = [seconds for seconds in every if seconds is not None]
    return hours(sum(known)) if len(known) == len(every) else None
