"""A run: what its records hold, and the metrics that follow from them."""

import contextlib
import difflib
import math
import re
from pathlib import Path
from typing import NamedTuple

from tlcluster import cinic10, records
from tlcluster.errors import UserError
from tlcluster.experiments import EXPERIMENTS
from tlcluster.paths import expanded, typed
from tlcluster.records import (
    EpochRecord,
    ExperimentConfig,
    ExperimentResult,
    RunManifest,
    Status,
)
from tlcluster.report.formats import shorten
from tlcluster.report.metrics import Comparison, Metrics, Predictions, compare, evaluate
from tlcluster.report.reading import damaged, read_epochs, read_predictions, read_record
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store

_ADVICE = f"give the folder of one run, OUTPUT/RUN-NAME, as `{typed('run')}` wrote it"
_EXPERIMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class ExperimentRun(NamedTuple):
    """One experiment of a run, as far as it got."""

    name: str
    status: Status
    config: ExperimentConfig | None
    epochs: tuple[EpochRecord, ...]
    result: ExperimentResult
    """If the experiment has not written one, what follows from its epochs."""
    metrics: Metrics | None
    """None until there are predictions."""

    @property
    def title(self) -> str:
        """Its name if it has no title."""
        if self.config is not None:
            return self.config.experiment.title or self.name
        return EXPERIMENTS[self.name].title if self.name in EXPERIMENTS else self.name

    @property
    def summary(self) -> str:
        if self.config is not None:
            return self.config.experiment.summary
        return EXPERIMENTS[self.name].summary if self.name in EXPERIMENTS else ""

    @property
    def epochs_run(self) -> int:
        """The result of an interrupted experiment may not count its last epochs."""
        return max(self.result.epochs_run, len(self.epochs))

    @property
    def best_so_far(self) -> int | None:
        """The epoch whose weights were kept, else the best one yet: the first of equals."""
        scores = {
            record.epoch: record.val_accuracy
            for record in self.epochs
            if math.isfinite(record.val_accuracy)
        }
        if self.result.best_epoch in scores:
            return self.result.best_epoch
        return max(scores, key=lambda epoch: scores[epoch]) if scores else None


class Run(NamedTuple):
    """A run with the metrics that follow from its predictions."""

    manifest: RunManifest
    experiments: tuple[ExperimentRun, ...]
    comparisons: tuple[Comparison, ...]
    """Between experiments that have predictions."""


def open_run(url: str) -> Store:
    """The store that is the folder of one run.

    Raises:
        UserError: it cannot be opened. If a directory is no run, the error names the runs
            that are beside or inside it.
    """
    if ":" not in url.partition("/")[0]:
        with contextlib.suppress(OSError, ValueError):  # open_store explains them.
            folder = expanded(url).absolute()
            if not (folder.is_file() or (folder / records.MANIFEST).exists()):
                raise UserError(_no_run(folder))
    return open_store(url)


def _no_run(folder: Path) -> str:
    shown = shorten(str(folder), 300)
    if folder.exists():
        beside, message = folder, f"{shown}: no run here, {records.MANIFEST} is missing; {_ADVICE}"
    else:
        beside, message = folder.parent, f"{shown}: no such directory; {_ADVICE}"
    names = [shorten(path.parent.name, 60) for path in sorted(beside.glob(f"*/{records.MANIFEST}"))]
    if not names:
        return message
    close = difflib.get_close_matches(folder.name, names, n=2)
    hint = f"; did you mean {' or '.join(close)}?" if close and beside != folder else ""
    more = ", …" if len(names) > 8 else ""
    return f"{message}{hint}; runs in {shorten(str(beside), 300)}: {', '.join(names[:8])}{more}"


def manifest_of(store: Store, prefix: str = "") -> RunManifest:
    """The manifest of a run; arguments and errors are those of `read_run`."""
    manifest = read_record(RunManifest, store, prefix + records.MANIFEST)
    if manifest is None:
        raise UserError(
            f"{store.url}: no run here, {prefix}{records.MANIFEST} is missing; {_ADVICE}"
        )
    for position, name in enumerate(manifest.experiments):
        shown = shorten(repr(name), 40)
        if not _EXPERIMENT_NAME.fullmatch(name):
            raise damaged(store, prefix + records.MANIFEST, f"{shown} is no experiment's name")
        if name in manifest.experiments[:position]:
            raise damaged(store, prefix + records.MANIFEST, f"{shown} is named twice")
    return manifest


def read_run(store: Store, prefix: str = "") -> Run:
    """Everything that is there of a run; only its manifest must be.

    Args:
        store: holds the run.
        prefix: what the run's keys begin with, for example `runs/first/`.

    Raises:
        UserError: there is no run, or a record is damaged.
    """
    manifest = manifest_of(store, prefix)
    predictions: dict[str, Predictions] = {}
    experiments = []
    for name in manifest.experiments:
        experiment, predicted = _read_experiment(store, f"{prefix}{name}/", name, manifest)
        experiments.append(experiment)
        if predicted is not None:
            predictions[name] = predicted
    return Run(manifest, tuple(experiments), compare(predictions))


def _read_experiment(
    store: Store, prefix: str, name: str, manifest: RunManifest
) -> tuple[ExperimentRun, Predictions | None]:
    config = read_record(ExperimentConfig, store, prefix + records.CONFIG)
    if config is not None and config.experiment.name != name:
        other = shorten(repr(config.experiment.name), 40)
        raise damaged(store, prefix + records.CONFIG, f"it belongs to the experiment {other}")
    epochs = read_epochs(store, prefix + records.EPOCHS)
    result = read_record(ExperimentResult, store, prefix + records.RESULT)
    started = config is not None or bool(epochs)
    if result is None:
        result = ExperimentResult(
            status="running" if started else "queued",
            epochs_run=len(epochs),
            wall_seconds=sum(record.seconds for record in epochs),
        )
    status = result.status
    if status == "running" and manifest.status != "running":
        # It was killed before it could say so.
        status = "interrupted"
    classes = manifest.dataset.classes
    predictions = read_predictions(store, prefix + records.PREDICTIONS, len(classes))
    origins = manifest.dataset.name == cinic10.NAME
    metrics = evaluate(predictions, classes, origins=origins) if predictions else None
    return ExperimentRun(name, status, config, epochs, result, metrics), predictions
