"""Live curves for TensorBoard, in the run's folder."""

import tempfile
from pathlib import Path

import tensorflow as tf

from tlcluster.records import TENSORBOARD, EpochRecord
from tlcluster.storage.protocol import Store

CURVES = ("loss", "accuracy", "val_loss", "val_accuracy", "images_per_second")


class Events:
    """The event file of one experiment, put anew after every epoch.

    TensorFlow writes to local files only, so the file is written here and put
    as a whole. An experiment that goes on writes its history once more.
    """

    def __init__(self, run: Store, experiment: str) -> None:
        self._run, self._prefix = run, f"{experiment}/{TENSORBOARD}"
        self._folder = tempfile.TemporaryDirectory(prefix="tlcluster-events-")
        self._writer = tf.summary.create_file_writer(self._folder.name)
        self._written = 0
        for found in run.list(f"{self._prefix}/events.out.tfevents."):
            run.delete(found.key)

    def write(self, history: tuple[EpochRecord, ...]) -> None:
        """Bring the file up to the last epoch of the history."""
        with self._writer.as_default():
            for record in history[self._written :]:
                for curve in CURVES:
                    tf.summary.scalar(curve, getattr(record, curve), step=record.epoch)
        self._written = len(history)
        self._writer.flush()
        for path in Path(self._folder.name).iterdir():
            self._run.put(f"{self._prefix}/{path.name}", path)
