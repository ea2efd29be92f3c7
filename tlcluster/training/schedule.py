"""The numbers that a training goes by, and the rows of each of its steps: pure functions."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tlcluster.dataset.order import Ints, RowBatch, steps_per_epoch, training_batches
from tlcluster.training.task import Task


class Schedule(NamedTuple):
    """What one worker trains, when and at which rate."""

    rank: int
    workers: int
    seed: int
    global_batch: int
    """Rows of a step, all workers together."""
    learning_rate: float
    steps: int
    """Steps of an epoch."""
    epochs: int
    """Epochs at most."""
    patience: int
    """Epochs without a better validation accuracy before training stops."""


class StepRows(NamedTuple):
    """The rows that one worker reads for one step of training."""

    epoch: int
    """Counts from 1."""
    view: int
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
        batches = training_batches(
            shard_rows,
            seed=schedule.seed,
            epoch=number,
            global_batch=schedule.global_batch,
            rank=schedule.rank,
            world_size=schedule.workers,
            first_step=step if number == epoch else 0,
        )
        for rows in batches:
            yield StepRows(number, view(number), rows)
