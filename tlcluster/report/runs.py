"""A run's records, read back from its folder and checked."""

import io
import math
import re
import zipfile
import zlib
from typing import NamedTuple, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from tlcluster import records
from tlcluster.errors import UserError
from tlcluster.experiments import EXPERIMENTS
from tlcluster.records import (
    EpochRecord,
    ExperimentConfig,
    ExperimentResult,
    RunManifest,
    Status,
)
from tlcluster.report.metrics import Comparison, Metrics, Predictions, compare, evaluate
from tlcluster.storage.protocol import ObjectMissing, Store

_EXPERIMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


class ExperimentRun(NamedTuple):
    """One experiment of a run, as far as it got."""

    name: str
    status: Status
    config: ExperimentConfig | None
    epochs: tuple[EpochRecord, ...]
    result: ExperimentResult
    """Where the experiment has not written one, what its epochs tell."""
    metrics: Metrics | None
    """None until there are predictions."""

    @property
    def title(self) -> str:
        if self.config is not None:
            return self.config.experiment.title
        return EXPERIMENTS[self.name].title if self.name in EXPERIMENTS else self.name

    @property
    def summary(self) -> str:
        if self.config is not None:
            return self.config.experiment.summary
        return EXPERIMENTS[self.name].summary if self.name in EXPERIMENTS else ""

    @property
    def epochs_run(self) -> int:
        """What the result says, unless it was written by one who could not know."""
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


def read_run(store: Store, prefix: str = "") -> Run:
    """Everything that is there of a run; only its manifest must be.

    Args:
        store: holds the run.
        prefix: what the run's keys begin with, for example `runs/first/`.

    Raises:
        UserError: there is no run, or a record is damaged.
    """
    manifest = _read(RunManifest, store, prefix + records.MANIFEST)
    if manifest is None:
        raise UserError(
            f"{store.url}: no run here, {prefix}{records.MANIFEST} is missing; give the folder of "
            "one run, OUTPUT/RUN-NAME, as `jobs/run_all.py` wrote it"
        )
    for name in manifest.experiments:
        if not _EXPERIMENT_NAME.fullmatch(name):
            raise _damaged(store, prefix + records.MANIFEST, f"{name!r} is no experiment's name")
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
    config = _read(ExperimentConfig, store, prefix + records.CONFIG)
    epochs = _read_epochs(store, prefix + records.EPOCHS)
    result = _read(ExperimentResult, store, prefix + records.RESULT)
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
    predictions = _read_predictions(store, prefix + records.PREDICTIONS, manifest.dataset.classes)
    metrics = evaluate(predictions, manifest.dataset.classes) if predictions else None
    return ExperimentRun(name, status, config, epochs, result, metrics), predictions


def _read_epochs(store: Store, key: str) -> tuple[EpochRecord, ...]:
    """The epochs in order. After a resume some were trained again: the last time counts."""
    history: list[EpochRecord] = []
    for number, line in enumerate((_get(store, key) or b"").splitlines(), 1):
        record = _parse(EpochRecord, line, store, f"{key}, line {number}")
        history = [earlier for earlier in history if earlier.epoch < record.epoch] + [record]
    return tuple(history)


def _read_predictions(store: Store, key: str, classes: tuple[str, ...]) -> Predictions | None:
    content = _get(store, key)
    if content is None:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            source, label, probabilities = (arrays[name] for name in Predictions._fields)
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(store, key, str(error) or type(error).__name__) from None
    images = label.size
    if (
        label.dtype.kind not in "iu"
        or label.shape != (images,)
        or source.dtype.kind != "U"
        or source.shape != (images,)
        or probabilities.dtype.kind != "f"
        or probabilities.shape != (images, len(classes))
    ):
        raise _damaged(
            store,
            key,
            f"source {source.dtype}{source.shape}, label {label.dtype}{label.shape} and "
            f"probabilities {probabilities.dtype}{probabilities.shape} do not fit together and "
            f"{len(classes)} classes",
        )
    if images == 0:
        return None
    if not 0 <= label.min() <= label.max() < len(classes):
        raise _damaged(store, key, f"a label is not between 0 and {len(classes) - 1}")
    return Predictions(source, label.astype(np.int64), probabilities)


def _read(model: type[AnyRecord], store: Store, key: str) -> AnyRecord | None:
    content = _get(store, key)
    return None if content is None else _parse(model, content, store, key)


def _get(store: Store, key: str) -> bytes | None:
    try:
        return store.get(key)
    except ObjectMissing:
        return None


def _parse(model: type[AnyRecord], content: bytes, store: Store, key: str) -> AnyRecord:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise _damaged(store, key, what) from None


def _damaged(store: Store, key: str, what: str) -> UserError:
    what = " ".join(what.split())
    return UserError(
        f"{store.url}/{key}: damaged record ({what}); restore the file, or run again under a new "
        "run name"
    )
