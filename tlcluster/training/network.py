"""The variables of one training: model, optimizer, and a copy of the best weights."""

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from tlcluster.experiments import Experiment
from tlcluster.training.checkpoint import Checkpoint
from tlcluster.training.collective import local
from tlcluster.training.model import base_network, build_models, changing_weights
from tlcluster.training.optimizer import OPTIMIZERS
from tlcluster.training.state import TrainingState


class Network:
    """What a training changes."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        experiment: Experiment,
        *,
        image_shape: tuple[int, int, int],
        classes: int,
        seed: int,
        base_seed: int | None = None,
        imagenet_weights: bytes | None,
        weights_found: str,
        learning_rate: float,
    ) -> None:
        """Build the models with their initial weights; see `build_models`."""
        with strategy.scope():
            self.models = build_models(
                experiment,
                image_shape=image_shape,
                classes=classes,
                seed=seed,
                base_seed=base_seed,
                imagenet_weights=imagenet_weights,
                weights_found=weights_found,
            )
            self.optimizer = OPTIMIZERS[experiment.optimizer](
                learning_rate, experiment.weight_decay, experiment.clip_norm, experiment.average
            )
            self.optimizer.build(self.trainable)
        base = base_network(self.models.whole)
        self.optimizer.slow_down(base.trainable_variables, experiment.base_rate)
        self._strategy = strategy
        self._weights = changing_weights(self.models.whole)
        self._best: list[np.ndarray] = []

    @property
    def trainable(self) -> list[tf.Variable]:
        return self.models.whole.trainable_variables

    @contextlib.contextmanager
    def tested(self) -> Iterator[None]:
        """Put the weights to be tested in place of those that are trained while the block runs."""
        averages = [v.numpy() for v in self._locals(self.optimizer.averages)]
        if not averages:
            yield
            return
        trained = [v.numpy() for v in self._locals(self.trainable)]
        self._assign(self.trainable, averages)
        try:
            yield
        finally:
            self._assign(self.trainable, trained)

    def keep_best(self) -> None:
        """Copy the weights in place of the best ones so far."""
        # Into the same arrays, one variable at a time: a full copy beside them would be a third
        # set of weights in memory.
        current = self._locals(self._weights)
        self._best = self._best or [np.empty(v.shape, np.float32) for v in current]
        for kept, variable in zip(self._best, current, strict=True):
            kept[...] = variable.numpy()

    def use_best(self) -> None:
        """Put the best weights into the model, and free the copy."""
        self._assign(self._weights, self._best)
        self._best = []

    def checkpoint(self, state: TrainingState) -> Checkpoint:
        """The variables and the state, to be saved at once: variables are not copied."""
        return Checkpoint(
            state,
            weights=self._locals(self._weights),
            optimizer=self._locals(self.optimizer.variables),
            best=self._best,
        )

    def fits(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint has arrays for the variables of this network."""
        weights, optimizer = self._locals(self._weights), self._locals(self.optimizer.variables)
        return (
            _same_kind(checkpoint.weights, weights)
            and _same_kind(checkpoint.optimizer, optimizer)
            and (not checkpoint.best or _same_kind(checkpoint.best, weights))
            and bool(checkpoint.best) == bool(checkpoint.state.history)
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint."""
        self._assign(self._weights, checkpoint.weights)
        self._assign(self.optimizer.variables, checkpoint.optimizer)
        self._best = checkpoint.best

    def _locals(self, variables: Iterable[tf.Variable]) -> list[tf.Variable]:
        return [local(self._strategy, variable) for variable in variables]

    def _assign(self, variables: Iterable[tf.Variable], values: list[np.ndarray]) -> None:
        for variable, value in zip(self._locals(variables), values, strict=True):
            variable.assign(value)


def _same_kind(arrays: list[np.ndarray], variables: list[tf.Variable]) -> bool:
    """Whether arrays have the shapes and types of variables."""
    return [(a.shape, a.dtype) for a in arrays] == [
        (tuple(v.shape), v.dtype.as_numpy_dtype) for v in variables
    ]
