"""The command `predict`: answers as a table and as CSV."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tlcluster.cli import OK
from tlcluster.export.place import write_whole
from tlcluster.export.predict import Answer, Classifier
from tlcluster.paths import checked_text, expanded
from tlcluster.settings import PredictSettings
from tlcluster.terminal import printable, say


def run_predict(settings: PredictSettings) -> int:
    """Classify pictures; returns the exit status. Nothing is written unless all can be read.

    Raises:
        UserError: see `Classifier`; or the CSV file cannot be written.
    """
    classifier = Classifier(settings.model)
    answers = classifier(settings.path)
    console = Console()
    if settings.csv:
        write_whole("--csv", checked_text(expanded(settings.csv).absolute()), as_csv(answers))
    console.print(_table(answers, settings.top))
    height, width, _ = classifier.facts.image_shape
    say(
        console,
        f"Pictures are resized to {width}×{height} pixels, as ingest does it: "
        f"{classifier.facts.resizing}.",
    )
    return OK


def as_csv(answers: Sequence[Answer]) -> str:
    """One line for each picture: path, class, probability, then the probability of each class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "class", "probability", *(f"p({c})" for c in answers[0].classes)])
    for one in answers:
        numbers = [f"{p:.6f}" for p in (one.probability, *one.probabilities)]
        writer.writerow([_text(one.path), one.label, *numbers])
    return text.getvalue()


def _text(path: Path) -> str:
    """A path that can be written as UTF-8."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _table(answers: Sequence[Answer], top: int) -> Table:
    table = Table("picture", "class", "%", box=SIMPLE_HEAD, pad_edge=False)
    if top > 1:
        table.add_column("then")
    for one in answers:
        (label, probability), *others = one.ranked[:top]
        row = [_text(one.path), label, f"{100 * probability:.1f}"]
        if top > 1:
            row.append(", ".join(f"{name} {100 * p:.1f}" for name, p in others))
        table.add_row(*(escape(printable(cell)) for cell in row))
    return table
