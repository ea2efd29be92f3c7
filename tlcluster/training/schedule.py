"""The numbers that a training goes by, and the rows of each of its steps: pure functions."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tlcluster.dataset.order import Ints, RowBatch, steps_per_epoch, training_batches
from tlcluster.experiments import LearningRateCurve
from tlcluster.training.learning_rate import share
from tlcluster.training.mixup import Mix, mixed
from tlcluster.training.task import Task


class Schedule(NamedTuple):
    """What one worker trains, when and at which rate."""

    rank: int
    workers: int
    seed: int
    global_batch: int
    """Rows of a step, all workers together."""
    learning_rate: float
    """The highest of all steps."""
    steps: int
    """Steps of an epoch."""
    epochs: int
    """Epochs at most."""
    patience: int
    """Epochs without a better validation accuracy before training stops."""
    curve: LearningRateCurve = "constant"
    """Of the learning rate after the warm-up."""
    mixup: float = 0.0
    warmup: float = 0.0
    """Share of all steps in which the learning rate rises."""

    def rate(self, epoch: int, step: int) -> float:
        """The learning rate of a step.

        Args:
            epoch: counts from 1.
            step: of the epoch; counts from 0.
        """
        done = (epoch - 1) * self.steps + step
        whole = self.epochs * self.steps
        return self.learning_rate * share(done, whole, curve=self.curve, warmup=self.warmup)


class StepRows(NamedTuple):
    """The rows that one worker reads for one step of training."""

    epoch: int
    """Counts from 1."""
    view: int
    rate: float
    """The learning rate."""
    mix: Mix
    rows: RowBatch


def scheduled(task: Task, *, rank: int, workers: int, rows: int) -> Schedule:
    """The schedule of a worker; `rows` is the number of training rows.

    With `scale_batch`, batch and learning rate grow with the number of workers.
    """
    experiment = task.experiment
    scale = workers if task.scale_batch else 1
    global_batch = experiment.global_batch * scale
    return Schedule(
        rank=rank,
        workers=workers,
        seed=task.seed,
        global_batch=global_batch,
        learning_rate=experiment.learning_rate * scale,
        steps=steps_per_epoch(rows, global_batch),
        epochs=experiment.epochs,
        patience=experiment.patience,
        curve=experiment.schedule,
        warmup=experiment.warmup,
        mixup=experiment.mixup,
    )


def training_rows(
    schedule: Schedule,
    shard_rows: Ints,
    *,
    epoch: int,
    step: int,
    view: Callable[[int], int],
) -> Iterator[StepRows]:
    """The rows of every step from here to the end of the last epoch.

    All epochs come in one iterator, so that the shards of the next epoch are
    fetched while the current one ends.

    Args:
        schedule: of this worker.
        shard_rows: rows of each shard of the training split, in index order.
        epoch: the epoch in progress, counted from 1.
        step: steps of it that are done.
        view: epoch → the view that it shows.
    """
    for number in range(epoch, schedule.epochs + 1):
        first = step if number == epoch else 0
        batches = training_batches(
            shard_rows,
            seed=schedule.seed,
            epoch=number,
            global_batch=schedule.global_batch,
            rank=schedule.rank,
            world_size=schedule.workers,
            first_step=first,
        )
        for place, rows in enumerate(batches, first):
            mix = mixed(rows, seed=schedule.seed, epoch=number, step=place, alpha=schedule.mixup)
            yield StepRows(number, view(number), schedule.rate(number, place), mix, rows)
