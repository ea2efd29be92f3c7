"""An exported model on the test split, beside the predictions of the training, image by image."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from tlcluster.checkup.finding import size
from tlcluster.dataset.shards import Index, fetched_shard
from tlcluster.export.opened import Images, Probabilities, Run
from tlcluster.report.formats import percent, points
from tlcluster.report.metrics import Predictions, right_of
from tlcluster.storage.protocol import Store

EQUAL = 1e-5
"""Largest difference of a probability that rounding alone explains: each runtime adds up the
products of a layer in its own order."""

BATCH = 128
"""Images at once."""


class Score(NamedTuple):
    """One exported model compared with the training."""

    file: str
    bytes: int
    """Size of the file, or of all files of the folder."""
    images: int
    agreeing: int
    """Images for which the most probable class is that of the training."""
    largest: float
    """Difference of a probability."""
    accuracy: float
    trained_accuracy: float
    """Of the training's predictions, on the same images."""

    @property
    def is_equal(self) -> bool:
        return self.largest <= EQUAL

    @property
    def verdict(self) -> str:
        """Equal to the training, or by how much not."""
        if self.is_equal:
            return "equal"
        lost = points(self.accuracy - self.trained_accuracy, 2)
        return f"accuracy {lost} points" if lost != "0.00" else "same accuracy"


def compared(file: str, count: int, trained: Predictions, probabilities: Probabilities) -> Score:
    """The score of a model.

    Args:
        file: its name.
        count: its size in bytes.
        trained: what the training predicted.
        probabilities: what the model answers for the same images, in the same order.
    """
    ours = trained._replace(probabilities=probabilities)
    same = probabilities.argmax(axis=1) == trained.probabilities.argmax(axis=1)
    return Score(
        file=file,
        bytes=count,
        images=len(same),
        agreeing=int(same.sum()),
        largest=float(np.abs(probabilities - trained.probabilities).max()),
        accuracy=float(right_of(ours).mean()),
        trained_accuracy=float(right_of(trained).mean()),
    )


def answers(
    run: Run, store: Store, index: Index, split: str, done: Callable[[int], None]
) -> Probabilities:
    """What a model answers for every image of a split, in index order.

    Args:
        done: called with the number of images that were scored since the last call.
    """
    found: list[Probabilities] = []
    for batch in _batches(store, index, split):
        found.append(run(batch))
        done(len(batch))
    return np.concatenate(found)


def first_images(store: Store, index: Index, split: str, count: int) -> Images:
    """The first images of a split; shards hold them in random order of class."""
    found: list[Images] = []
    for batch in _batches(store, index, split):
        found.append(batch)
        if sum(map(len, found)) >= count:
            break
    return np.concatenate(found)[:count]


def _batches(store: Store, index: Index, split: str) -> Iterator[Images]:
    for info in index.shards(split):
        images = fetched_shard(store, info, index)["image"]
        for begin in range(0, len(images), BATCH):
            yield np.ascontiguousarray(images[begin : begin + BATCH])


HEADING = ("file", "size", "accuracy, %", "same class", "largest difference", "")
"""Of the table; see `cells`."""


def cells(score: Score) -> tuple[str, ...]:
    """A row of the table."""
    return (
        score.file,
        size(score.bytes),
        percent(score.accuracy, 2),
        f"{score.agreeing:,} of {score.images:,}",
        f"{score.largest:.1e}",
        score.verdict,
    )


def explained(score: Score) -> str:
    """What the table compares with."""
    return (
        f"Compared with the training's own predictions for the {score.images:,} test images, "
        f"{percent(score.trained_accuracy, 2)} % of which are right. Equal: no probability differs "
        f"by more than {EQUAL:g}."
    )
