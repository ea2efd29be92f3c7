"""What a training leaves in the run's folder; see `tlcluster.records`."""

import hashlib
import io

import numpy as np

from tlcluster.dataset.labels import sources_and_labels
from tlcluster.dataset.shards import Index
from tlcluster.records import (
    CONFIG,
    EPOCHS,
    PREDICTIONS,
    RESULT,
    WEIGHTS,
    EpochRecord,
    ExperimentConfig,
    ExperimentResult,
    Record,
)
from tlcluster.storage.protocol import Store
from tlcluster.training.model import Models, layer_records, parameter_counts, weights_file
from tlcluster.training.task import Task


def write_config(run: Store, task: Task, models: Models) -> None:
    """Write what decides the result, and the layers of the model."""
    trainable, total = parameter_counts(models.whole)
    config = ExperimentConfig(
        experiment=task.experiment,
        seed=task.seed,
        layers=layer_records(models.whole),
        trainable_params=trainable,
        total_params=total,
    )
    _put_record(run, f"{task.folder}/{CONFIG}", config)


def write_epochs(run: Store, folder: str, history: tuple[EpochRecord, ...]) -> None:
    """Write the records of all finished epochs, one per line."""
    lines = "".join(f"{record.model_dump_json()}\n" for record in history)
    run.put(f"{folder}/{EPOCHS}", lines.encode())


def write_weights(run: Store, folder: str, models: Models, *, writes: bool) -> str:
    """Write the weights, base and head. Every worker calls it; only one `writes`.

    Returns:
        The sha256 of the file.
    """
    # Reading BatchNorm's moving statistics as a whole is a collective.
    with weights_file(models.whole) as path:
        if writes:
            run.put(f"{folder}/{WEIGHTS}", path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def write_predictions(
    run: Store, folder: str, images: Store, index: Index, probabilities: np.ndarray
) -> str:
    """Write name, label and probabilities, float32 (n, classes), of every test image.

    Returns:
        The sha256 of the file.
    """
    sources, labels = sources_and_labels(images, index, "test")
    buffer = io.BytesIO()
    np.savez(buffer, source=sources, label=labels, probabilities=probabilities)
    run.put(f"{folder}/{PREDICTIONS}", buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def write_result(run: Store, folder: str, result: ExperimentResult) -> None:
    """Write the result. It comes last: with it, the experiment is finished."""
    _put_record(run, f"{folder}/{RESULT}", result)


def _put_record(run: Store, key: str, record: Record) -> None:
    run.put(key, record.model_dump_json(indent=1).encode() + b"\n")
