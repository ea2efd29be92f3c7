"""A finished experiment of a run, read and checked before anything is made of it."""

import hashlib
from typing import NamedTuple

import numpy as np

from tlcluster.cli import nearest
from tlcluster.dataset.labels import sources_and_labels
from tlcluster.dataset.shards import Index, read_index
from tlcluster.errors import UserError
from tlcluster.records import (
    CONFIG,
    PREDICTIONS,
    RESULT,
    WEIGHTS,
    ExperimentConfig,
    ExperimentResult,
    RunManifest,
    replicate_folder,
)
from tlcluster.report.metrics import Predictions
from tlcluster.report.reading import damaged, read_predictions, read_record
from tlcluster.report.runs import manifest_of
from tlcluster.storage.protocol import LARGEST, ObjectMissing, ObjectTooLarge, Store


class Finished(NamedTuple):
    """One training that ended well, with all that it left."""

    manifest: RunManifest
    config: ExperimentConfig
    result: ExperimentResult
    predictions: Predictions
    weights: bytes
    """An HDF5 file; see `tlcluster.training.model.load_weights_file`."""

    @property
    def name(self) -> str:
        return self.config.experiment.name

    @property
    def weights_sha256(self) -> str:
        return hashlib.sha256(self.weights).hexdigest()


def read_finished(run: Store, experiment: str, seed: int | None) -> Finished:
    """Read what a training left.

    Args:
        run: the folder of the run.
        experiment: its name.
        seed: which replicate; None is the run's first seed.

    Raises:
        UserError: the run has no such experiment or seed, the training has not finished, or a
            record is damaged or missing.
    """
    manifest = manifest_of(run)
    if experiment not in manifest.experiments:
        raise UserError(
            f"--experiment {experiment}: not in {run.url}; "
            f"{nearest(experiment, manifest.experiments)}"
        )
    seed = manifest.seed if seed is None else seed
    if seed not in manifest.all_seeds:
        seeds = ", ".join(map(str, manifest.all_seeds))
        raise UserError(f"--seed {seed}: not in {run.url}; it has: {seeds}")
    folder = replicate_folder(experiment, seed, manifest.seed)
    result = read_record(ExperimentResult, run, f"{folder}/{RESULT}")
    _refuse_unfinished(run, folder, result)
    config = read_record(ExperimentConfig, run, f"{folder}/{CONFIG}")
    classes = len(manifest.dataset.classes)
    predictions = read_predictions(run, f"{folder}/{PREDICTIONS}", classes)
    if result is None or config is None or predictions is None:
        missing = CONFIG if config is None else PREDICTIONS
        raise damaged(run, f"{folder}/{missing}", "it is missing")
    if config.experiment.name != experiment:
        raise damaged(run, f"{folder}/{CONFIG}", "it belongs to another experiment")
    content = {name: _content(run, f"{folder}/{name}") for name in (WEIGHTS, PREDICTIONS)}
    for name, data in content.items():
        expected = result.sha256.get(name)
        if expected not in (None, hashlib.sha256(data).hexdigest()):
            raise damaged(run, f"{folder}/{name}", f"its sha256 is not the one that {RESULT} says")
    return Finished(manifest, config, result, predictions, content[WEIGHTS])


def _refuse_unfinished(run: Store, folder: str, result: ExperimentResult | None) -> None:
    if result is not None and result.status == "finished":
        return
    state = "has no result yet" if result is None else f"is {result.status}"
    why = f" ({result.error})" if result is not None and result.error else ""
    raise UserError(
        f"{run.url}/{folder}: the training {state}{why}, and only finished ones can be exported; "
        "run again under this run name to finish it, or give another --experiment"
    )


def _content(run: Store, key: str) -> bytes:
    try:
        return run.get(key, LARGEST)
    except ObjectMissing:
        raise damaged(run, key, "it is missing") from None
    except ObjectTooLarge:
        raise damaged(run, key, f"it has more than {LARGEST:,} bytes") from None


def its_data_set(store: Store, finished: Finished) -> Index:
    """The index of a store that holds the data set of the run.

    Raises:
        UserError: the store holds another one, or the predictions are for other images.
    """
    index, sha256 = read_index(store)
    expected = finished.manifest.dataset.index_sha256
    if sha256 != expected:
        raise UserError(
            f"{store.url}: is not the data set of this run: its index has sha256 {sha256}, the "
            f"run's had {expected}; give the store that it was trained on with --store"
        )
    sources, labels = sources_and_labels(store, index, "test")
    predicted = finished.predictions
    if not (np.array_equal(sources, predicted.source) and np.array_equal(labels, predicted.label)):
        raise UserError(
            f"{finished.name}: its {PREDICTIONS} is for other images or labels than the test split "
            f"of {store.url}; restore the file, or train again under a new run name"
        )
    return index
