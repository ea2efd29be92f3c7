"""Model and a split → logits. Each image counts once, however many workers there are."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from tlcluster.dataset.stream import Batch
from tlcluster.training.collective import joined, local, total
from tlcluster.training.diary import NO_DIARY, Diary
from tlcluster.training.model import no_keys
from tlcluster.training.state import Scores


class Evaluator:
    """One traced forward pass, used for every evaluation of a training."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        logits_of: Callable[..., tf.Tensor],
        inputs: tf.TensorSpec,
        diary: Diary = NO_DIARY,
    ) -> None:
        """
        Args:
            strategy: adds up and joins the workers' parts.
            logits_of: inputs, keys and `training` → logits; see `tlcluster.training.model.Models`.
            inputs: shape and dtype of the inputs; the first dimension is free.
            diary: notes that this worker waits for the others.
        """
        self.strategy, self._diary = strategy, diary
        self.sum_seconds = 0.0
        """That the last sum in `scores` took: above all, waiting for the slowest worker."""

        # In replica context: outside it, reading BatchNorm's moving statistics is a
        # collective, and workers with unequal numbers of batches would wait forever.
        # One graph for all sizes, so that the last digit does not depend on which size came first.
        @tf.function(input_signature=[inputs])
        def forward(inputs: tf.Tensor) -> tf.Tensor:
            logits = strategy.run(
                lambda x: logits_of(tf.cast(x, tf.float32), no_keys(x), training=False),
                args=(inputs,),
            )
            return local(strategy, logits)

        self._forward = forward

    def logits(self, batches: Iterator[Batch]) -> tuple[np.ndarray, np.ndarray]:
        """This worker's part of a split.

        Returns:
            float32 logits (n, classes) and int64 labels (n,), in the order of the batches.
        """
        logits, labels = [], []
        for batch in batches:
            logits.append(self._forward(tf.constant(batch.inputs)).numpy())
            labels.append(batch.labels)
        if not logits:
            return np.zeros((0, 0), np.float32), np.zeros((0,), np.int64)
        return np.concatenate(logits), np.concatenate(labels)

    def scores(self, batches: Iterator[Batch]) -> Scores:
        """Loss and accuracy of a whole split. Collective: all workers call it together."""
        # float64 keeps counts exact, and sums the same however the split is cut.
        part = tf.constant(scores(*self.logits(batches)), tf.float64)
        began = time.monotonic()
        with self._diary.together():
            loss, correct, rows = total(self.strategy, part).numpy()
        self.sum_seconds = time.monotonic() - began
        return Scores(float(loss), int(correct), int(rows))

    def predictions(self, batches: Iterator[Batch], classes: int) -> np.ndarray:
        """Probabilities of a whole split in index order, float32 (n, classes), on every worker.

        Collective: all workers call it together. Their parts are consecutive, so joined by rank
        they are in index order.
        """
        logits, _ = self.logits(batches)
        part = tf.constant(softmax(logits.reshape(-1, classes)))
        with self._diary.together():
            return joined(self.strategy, part).numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float32, of logits (n, classes)."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)


def scores(logits: np.ndarray, labels: np.ndarray) -> Scores:
    """Sum of cross-entropies and number of right answers; ties go to the first class."""
    if not len(labels):
        return Scores(0.0, 0, 0)
    wide = logits.astype(np.float64)
    peak = wide.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(wide - peak).sum(axis=1)) + peak[:, 0]
    losses = log_sum - wide[np.arange(len(labels)), labels]
    return Scores(float(losses.sum()), int((wide.argmax(axis=1) == labels).sum()), len(labels))
