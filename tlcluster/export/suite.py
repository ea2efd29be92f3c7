"""An export from its settings to its folder."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import tlcluster
from tlcluster.cli import OK
from tlcluster.dataset.sample import fill_with_sample
from tlcluster.dataset.shards import Index
from tlcluster.export.card import CARD, card
from tlcluster.export.facts import Facts
from tlcluster.export.finished import Finished, its_data_set, read_finished
from tlcluster.export.formats import INT8, bytes_of, write, writers
from tlcluster.export.opened import open_model
from tlcluster.export.place import free_place, whole_folder
from tlcluster.export.plain_model import plain_model
from tlcluster.export.score import HEADING, Score, answers, cells, compared, explained, first_images
from tlcluster.meter import meter
from tlcluster.report.runs import open_run
from tlcluster.settings import EMBEDDED, ExportSettings
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store
from tlcluster.terminal import printable, say

CALIBRATION_IMAGES = 300
"""Training images that decide the ranges of activations in 8 bits."""


def run_export(settings: ExportSettings) -> int:
    """Export an experiment; returns the exit status.

    Raises:
        UserError: the run, the experiment or the data set cannot be used, a format's libraries are
            missing, or the folder exists or cannot be written.
    """
    place = free_place("--to", settings.to)
    modules = writers(settings.formats)
    finished = read_finished(open_run(settings.run), settings.experiment, settings.seed)
    console = Console()
    with _opened_store(settings.store or finished.manifest.dataset.store) as store:
        index = its_data_set(store, finished)
        with whole_folder("--to", place) as folder:
            scores = list(_exports(modules, finished, store, index, folder))
            (folder / CARD).write_text(card(finished, scores, index.image_shape), encoding="utf-8")
    _show(console, scores)
    say(console, str(place / CARD))
    return OK


@contextlib.contextmanager
def _opened_store(url: str) -> Iterator[Store]:
    """The store of a data set. The embedded one has ended with its run; it held the sample."""
    if url != EMBEDDED:
        yield open_store(url)
        return
    with tempfile.TemporaryDirectory(prefix="tlcluster-sample-") as folder:
        store = open_store(folder)
        fill_with_sample(store)
        yield store


def facts_of(finished: Finished, index: Index) -> Facts:
    """What the exported models say of themselves."""
    manifest = finished.manifest
    return Facts(
        classes=manifest.dataset.classes,
        image_shape=index.image_shape,
        experiment=finished.name,
        run=manifest.name,
        seed=finished.config.seed,
        dataset=manifest.dataset.name,
        index_sha256=manifest.dataset.index_sha256,
        weights_sha256=finished.weights_sha256,
        tlcluster=tlcluster.__version__,
    )


def _exports(
    modules: dict[str, Any], finished: Finished, store: Store, index: Index, folder: Path
) -> Iterator[Score]:
    """Write every format, open what was written, and compare."""
    model, facts = plain_model(finished, index.image_shape), facts_of(finished, index)
    images = first_images(store, index, "train", CALIBRATION_IMAGES) if INT8 in modules else None
    for name, module in modules.items():
        path = write(name, module, model, folder, facts, images)
        with meter(name, index.rows("test"), "images", show=True) as done:
            probabilities = answers(open_model(path).run, store, index, "test", done)
        yield compared(path.name, bytes_of(path), finished.predictions, probabilities)


def _show(console: Console, scores: list[Score]) -> None:
    table = Table(*HEADING, box=SIMPLE_HEAD, pad_edge=False)
    for score in scores:
        table.add_row(*(escape(printable(cell)) for cell in cells(score)))
    console.print(table)
    say(console, explained(scores[0]))
