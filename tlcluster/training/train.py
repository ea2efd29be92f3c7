"""One worker of an experiment: build, continue, train, stop early, test, record.

`train` does not know Ray. It is given its place among the workers and functions
that talk to the driver, so that one process can run the same code.
"""

import contextlib
import functools
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tlcluster.dataset.shards import Index, read_index
from tlcluster.errors import UserError
from tlcluster.records import (
    PREDICTIONS,
    WEIGHTS,
    EpochRecord,
    ExperimentResult,
    WorkerRecord,
)
from tlcluster.training.collective import joined_lines
from tlcluster.training.diary import NO_DIARY, Diary
from tlcluster.training.energy import Meter
from tlcluster.training.evaluate import Evaluator
from tlcluster.training.events import Events
from tlcluster.training.feature_key import MIRRORED, PLAIN
from tlcluster.training.inputs import inputs_for, split_part
from tlcluster.training.ledger import Ledger
from tlcluster.training.loop import Loop, Parts
from tlcluster.training.network import Network
from tlcluster.training.progress import Phase, Progress
from tlcluster.training.recording import (
    write_config,
    write_epochs,
    write_predictions,
    write_result,
    write_weights,
)
from tlcluster.training.reporter import Reporter
from tlcluster.training.saves import Saves
from tlcluster.training.schedule import scheduled
from tlcluster.training.setup import Device, configure_tensorflow
from tlcluster.training.state import TrainingState, Used, is_over, progress_of
from tlcluster.training.stores import Stores, open_stores, refuse_full_disk
from tlcluster.training.strategy import made_strategy
from tlcluster.training.task import Task, seed_of_base


def _silent(seconds_away: float, why: str) -> None: ...


class Place(NamedTuple):
    """The place of a worker among the others, and its ways to talk to the driver."""

    rank: int
    world_size: int
    report: Callable[[EpochRecord], None]
    """Called by every worker after every epoch."""
    progress: Callable[[Progress], bool]
    """Called by rank 0, from any thread; True asks to stop: write a checkpoint and return."""
    away: Callable[[float, str], None] = _silent
    """Called by every worker, from any thread, while it waits for storage: seconds that storage
    has been away, and the reason; `(0.0, "")` once it answers again."""
    diary: Diary = NO_DIARY
    """Takes notes of what this worker does."""


def train(task: Task, place: Place, imagenet_weights: bytes | None) -> str:
    """Train one experiment as one of its workers.

    Rank 0 writes the experiment's records into the run's folder. Training continues
    from the newest checkpoint there.

    Returns:
        `finished`, or `interrupted` after a stop request.

    Raises:
        UserError: the store does not hold the data set that the run began with, the weights are of
            another base, a disk is too small, or the GPU that is reserved cannot be used.
        CorruptObject: a shard stays damaged after its retries.
        StoreUnavailable: storage did not answer for `task.storage_wait` seconds, or a stop
            request came while it was away.
    """
    began = time.monotonic()
    place.diary.does("start of TensorFlow and connection of the workers")
    with started(task, place.world_size) as worker:
        parts, stores, workers = prepared(task, place, imagenet_weights, worker, began)
        del imagenet_weights  # 59 MB
        return _run(parts, place, stores, workers)


class Started(NamedTuple):
    """What a worker sets up once, for one training or for many, one after another."""

    device: Device
    strategy: tf.distribute.Strategy


@contextlib.contextmanager
def started(task: Task, world_size: int) -> Iterator[Started]:
    """Set up TensorFlow in this process. The strategy is open while the block runs.

    All workers call it together.

    Args:
        task: says what a worker computes on.
        world_size: how many workers there are. TF_CONFIG has the addresses of several.

    Raises:
        UserError: see `configure_tensorflow` and `made_strategy`.
    """
    device = configure_tensorflow(task.gpus, task.threads, task.cache)
    with made_strategy(world_size, task.gpus) as strategy:
        yield Started(device, strategy)


class Prepared(NamedTuple):
    """One worker, ready to train."""

    parts: Parts
    stores: Stores
    workers: tuple[WorkerRecord, ...]
    """All workers of the experiment."""


def prepared(
    task: Task, place: Place, imagenet_weights: bytes | None, worker: Started, began: float
) -> Prepared:
    """Build what a worker trains with. All workers call it together.

    Args:
        task, place, imagenet_weights: see `train`.
        worker: one training after another may use it.
        began: monotonic time at which this attempt began.
    """
    device, strategy = worker
    me = WorkerRecord(rank=place.rank, host=socket.gethostname(), device=device.name)
    with place.diary.together("introduction of the workers"):
        lines = joined_lines(strategy, me.model_dump_json())
    workers = tuple(WorkerRecord.model_validate_json(line) for line in lines)
    place.diary.does("opening of the data set and building of the model")
    reporter = Reporter(place.progress if place.rank == 0 else None)
    stores = open_stores(task, away=place.away, should_stop=reporter.asked_to_stop)
    index = _expected_index(task, stores)
    refuse_full_disk(task, stores, index)
    schedule = scheduled(task, rank=place.rank, workers=place.world_size, rows=index.rows("train"))
    network = Network(
        strategy,
        task.experiment,
        image_shape=index.image_shape,
        classes=len(index.classes),
        seed=task.seed,
        base_seed=seed_of_base(task),
        imagenet_weights=imagenet_weights,
        weights_found=task.weights_found,
        learning_rate=schedule.learning_rate,
    )
    del imagenet_weights
    inputs = inputs_for(task, strategy, stores, index, network.models, device.precision)
    saves = Saves(
        stores.run,
        task.folder,
        network,
        writes=place.rank == 0,
        every=task.checkpoint_seconds,
        began=began,
        earlier_seconds=task.earlier_seconds,
    )
    evaluator, diary = Evaluator(strategy, inputs.logits_of, inputs.spec, place.diary), place.diary
    ledger = Ledger(strategy, schedule.workers, lambda: inputs.computed, Meter(task.gpus), diary)
    parts = Parts(
        task,
        strategy,
        index,
        schedule,
        inputs,
        network,
        evaluator,
        saves,
        reporter,
        ledger,
        diary,
    )
    return Prepared(parts, stores, workers)


def _expected_index(task: Task, stores: Stores) -> Index:
    index, sha256 = read_index(stores.images)
    if sha256 != task.index_sha256:
        raise UserError(
            f"{task.store} holds another data set than when the run began: its index has sha256 "
            f"{sha256}, expected {task.index_sha256}; restore it or use another run name"
        )
    return index


def _run(parts: Parts, place: Place, stores: Stores, workers: tuple[WorkerRecord, ...]) -> str:
    """Continue from the newest checkpoint, train to the end, test the best weights, record."""
    task, saves, folder = parts.task, parts.saves, parts.task.folder
    chief = place.rank == 0
    state = newest_state(parts)
    if chief:
        write_config(stores.run, task, parts.network.models)
    loop = Loop(parts, state)
    if not is_over(state, parts.schedule):
        events = Events(stores.run, folder, state.history) if chief else None
        for history in loop.epochs():
            place.diary.does(f"records of epoch {len(history)}")
            if events:
                write_epochs(stores.run, folder, history)
                events.write(history)
            # Ray Train lets no worker go on before all have reported.
            with place.diary.together(f"report of epoch {len(history)}"):
                place.report(history[-1])
        place.diary.does("last checkpoint")
        saves.save(loop.state)
        if not is_over(loop.state, parts.schedule):
            return "interrupted"
    test_began = time.monotonic()
    sha256 = _test(parts, loop.state, stores, chief=chief)
    test_seconds = time.monotonic() - test_began
    used = parts.ledger.since()
    if chief:
        began, first = task.command_started, loop.first_call_ended
        startup_seconds = None if first is None else first - began
        result = _result(parts, loop.state, workers, startup_seconds, sha256, test_seconds, used)
        write_result(stores.run, folder, result)
        saves.delete()
    return "finished"


def newest_state(parts: Parts) -> TrainingState:
    """Where the training stands: at its newest checkpoint, which is restored, or at its start."""
    parts.diary.does("choice of a checkpoint")
    return parts.saves.load(parts.schedule, functools.partial(_everyones, parts))


def _everyones(parts: Parts, line: str) -> list[str]:
    """The line of every worker; one worker need not ask."""
    if parts.schedule.workers == 1:
        return [line]
    with parts.diary.together():
        return joined_lines(parts.strategy, line)


def _test(parts: Parts, state: TrainingState, stores: Stores, *, chief: bool) -> Mapping[str, str]:
    """Test the best weights, and write them and the predictions.

    Returns:
        File → sha256.
    """
    folder = parts.task.folder
    parts.reporter.show(progress_of(state, parts.schedule, Phase.TESTING))
    parts.diary.does("test")
    parts.network.use_best()
    views = (PLAIN, MIRRORED)[: parts.task.experiment.test_views]
    probabilities = np.mean([_predictions(parts, view) for view in views], axis=0)
    with parts.diary.together("weights file"):
        sha256 = {WEIGHTS: write_weights(stores.run, folder, parts.network.models, writes=chief)}
    parts.diary.does("records of the test")
    if chief:
        sha256[PREDICTIONS] = write_predictions(
            stores.run, folder, stores.images, parts.index, probabilities
        )
    return sha256


def _predictions(parts: Parts, view: int) -> np.ndarray:
    """Probabilities of one view of the test split, float32 (n, classes)."""
    images = split_part(parts.inputs, parts.index, "test", parts.schedule, view)
    return parts.evaluator.predictions(images, len(parts.index.classes))


def _result(
    parts: Parts,
    state: TrainingState,
    workers: tuple[WorkerRecord, ...],
    startup_seconds: float | None,
    sha256: Mapping[str, str],
    test_seconds: float,
    used: Used,
) -> ExperimentResult:
    history, rows = state.history, parts.index.rows("train")
    train_seconds = sum(rows / epoch.images_per_second for epoch in history)
    return ExperimentResult(
        status="finished",
        workers=workers,
        attempts=parts.task.attempt,
        epochs_run=len(history),
        best_epoch=state.best_epoch,
        stopped_early=state.stopped_early,
        wall_seconds=parts.saves.wall_seconds(),
        startup_seconds=startup_seconds,
        images_per_second=len(history) * rows / train_seconds,
        sha256=dict(sha256),
        test_seconds=test_seconds,
        **used._asdict(),
    )
