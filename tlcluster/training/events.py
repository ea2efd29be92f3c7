"""Live curves for TensorBoard, in the run's folder."""

import contextlib
import tempfile
import weakref
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from tlcluster.records import TENSORBOARD, EpochRecord
from tlcluster.storage.protocol import Store
from tlcluster.storage.scratch import scratch_folder

CURVES = ("loss", "accuracy", "val_loss", "val_accuracy", "images_per_second")


class Events:
    """The event file of one experiment; it grows by one point per curve and epoch.

    An open TensorBoard keeps reading the file that it has opened and ignores one that
    replaces it. So if the run is a directory, new points are appended in place, also to the
    file of an earlier attempt. On S3 the object is written again as a whole.
    """

    def __init__(self, run: Store, folder: str, history: Sequence[EpochRecord]) -> None:
        """
        Args:
            run: the run's folder.
            folder: of the training, in the run's.
            history: finished epochs. A file that holds them is continued, any other deleted.
        """
        self._run = run
        self._folder = None if "://" in run.url else Path(run.url)
        # TensorFlow writes to local files only.
        opened = contextlib.ExitStack()
        scratch = opened.enter_context(scratch_folder("events", Path(tempfile.gettempdir())))
        weakref.finalize(self, opened.close)
        self._writer = tf.summary.create_file_writer(str(scratch / "new"))
        (self._new,) = (scratch / "new").iterdir()
        self._key = f"{folder}/{TENSORBOARD}/{self._new.name}"
        self._earlier, self._written = b"", 0
        """Content from an earlier attempt, and the number of epochs in the file."""
        found = [item.key for item in run.list(f"{folder}/{TENSORBOARD}/events.out.tfevents.")]
        if len(found) == 1 and history:
            content = run.get(found[0])
            end = epoch_ends(content).get(history[-1].epoch)
            if end is not None:
                self._key, self._earlier, self._written = found[0], content[:end], len(history)
                found = []
        for key in found:
            run.delete(key)
        self._size = len(self._earlier)

    def write(self, history: Sequence[EpochRecord]) -> None:
        """Bring the file up to the last epoch of the history."""
        with self._writer.as_default():
            for record in history[self._written :]:
                for curve in CURVES:
                    tf.summary.scalar(curve, getattr(record, curve), step=record.epoch)
        self._written = len(history)
        self._writer.flush()
        content = self._earlier + self._new.read_bytes()
        if not self._append(content):
            self._run.put(self._key, content)
        self._size = len(content)

    def _append(self, content: bytes) -> bool:
        """Replace all behind the part that was written before; False if that is not possible."""
        if self._folder is None or not self._size:
            return False
        try:
            with (self._folder / self._key).open("r+b") as file:
                file.seek(self._size)
                file.write(content[self._size :])
                file.truncate()
        except OSError:
            # Putting the whole file waits for storage, and says what is wrong.
            return False
        return True


def epoch_ends(content: bytes) -> dict[int, int]:
    """Epoch → the position in an event file at which it is complete.

    Reading ends at the first damaged or incomplete event.
    """
    ends: dict[int, int] = {}
    points: Counter[int] = Counter()
    position = 0
    with tempfile.NamedTemporaryFile(prefix="tlcluster-events-") as file:
        file.write(content)
        file.flush()
        try:
            for record in tf.data.TFRecordDataset(file.name).as_numpy_iterator():
                position += len(record) + 16  # with its length and two checksums
                event = tf.compat.v1.Event.FromString(record)
                points[event.step] += len(event.summary.value)
                if points[event.step] == len(CURVES):
                    ends[event.step] = position
        except (tf.errors.OpError, DecodeError):
            pass
    return ends
