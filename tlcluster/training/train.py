"""What one worker of an experiment does: build, resume, train, stop early, test, record.

`train` is the whole of it and knows nothing of Ray: it is told its place and
whom to report to, so that one process can run the same code.
"""

import io
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tlcluster.dataset.order import RowBatch, evaluation_batches, steps_per_epoch, training_batches
from tlcluster.dataset.shards import Index, open_shard, read_index
from tlcluster.dataset.stream import Batch, stream, stream_from
from tlcluster.errors import UserError
from tlcluster.experiments import BASE_FEATURES
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
    WorkerRecord,
)
from tlcluster.storage.cache import NodeCache
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store
from tlcluster.training.checkpoint import (
    Checkpoint,
    TrainingState,
    delete_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from tlcluster.training.collective import joined_lines, local
from tlcluster.training.data import dataset, inputs_spec
from tlcluster.training.evaluate import FEATURE_BATCH, IMAGE_BATCH, Evaluator
from tlcluster.training.events import Events
from tlcluster.training.feature_key import PLAIN, view_of
from tlcluster.training.features import Claim, FeatureStore
from tlcluster.training.model import (
    build_models,
    changing_weights,
    layer_records,
    parameter_counts,
    weights_file,
)
from tlcluster.training.optimizer import FusedAdam
from tlcluster.training.progress import Progress
from tlcluster.training.step import training_call
from tlcluster.training.strategy import made_strategy
from tlcluster.training.task import Task, feature_key

STEPS_PER_CALL = 8
"""Steps in one call of the graph. Between calls progress is shown, checkpoints are
written and a wish to stop is heard."""


class Place(NamedTuple):
    """Where a worker stands, and whom it talks to."""

    rank: int
    world_size: int
    report: Callable[[EpochRecord], None]
    """Called by every worker after every epoch."""
    progress: Callable[[Progress], bool]
    """Called by rank 0; True asks to stop: write a checkpoint and return."""


def train(task: Task, place: Place, imagenet_weights: bytes | None) -> str:
    """Train one experiment as one of its workers.

    Rank 0 leaves the experiment's records in the run's folder. Training goes on
    from the newest checkpoint there.

    Returns:
        `finished`, or `interrupted` after a wish to stop.

    Raises:
        UserError: the store is not what the run began with.
        CorruptObject: a shard stays damaged after its retries.
    """
    began = time.monotonic()
    device = configure_tensorflow(task.threads)
    with made_strategy(place.world_size) as strategy:
        return _train(task, place, imagenet_weights, strategy, device, began)


def _train(
    task: Task,
    place: Place,
    imagenet_weights: bytes | None,
    strategy: tf.distribute.Strategy,
    device: str,
    began: float,
) -> str:
    me = WorkerRecord(rank=place.rank, host=socket.gethostname(), device=device)
    hosts = tuple(
        WorkerRecord.model_validate_json(line)
        for line in joined_lines(strategy, me.model_dump_json())
    )
    cache = NodeCache(Path(task.cache) if task.cache else None, task.cache_bytes)
    store = open_store(task.store, cache=cache)
    index, sha256 = read_index(store)
    if sha256 != task.index_sha256:
        raise UserError(
            f"{task.store} holds another data set than when the run began: its index has sha256 "
            f"{sha256}, expected {task.index_sha256}; restore it or use another run name"
        )
    worker = _Worker(task, place, strategy, store, cache, index, imagenet_weights, hosts, began)
    del imagenet_weights  # 59 MB
    return worker.run()


def configure_tensorflow(threads: int) -> str:
    """Set TensorFlow up for this process, before it is used; returns the device in words."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        details = tf.config.experimental.get_device_details(gpus[0])
        if details.get("compute_capability", (0, 0)) >= (8, 0):
            # bfloat16 has float32's range: no loss scaling is needed.
            keras.mixed_precision.set_global_policy("mixed_bfloat16")
        tf.config.optimizer.set_jit("autoclustering")
        return str(details.get("device_name", "GPU"))
    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(max(2, threads))
    tf.config.experimental.enable_op_determinism()
    return f"CPU, {threads or 'all'} thread{'s' if threads != 1 else ''}"


class _Worker:
    """The state of one training, and its steps in order; see `run`."""

    def __init__(
        self,
        task: Task,
        place: Place,
        strategy: tf.distribute.Strategy,
        store: Store,
        cache: NodeCache,
        index: Index,
        imagenet_weights: bytes | None,
        hosts: tuple[WorkerRecord, ...],
        began: float,
    ) -> None:
        self.task, self.place, self.strategy = task, place, strategy
        self.store, self.cache, self.index = store, cache, index
        self.hosts, self.began = hosts, began
        self.run_store = open_store(task.run, create=True)
        experiment = task.experiment
        scale = place.world_size if task.scale_batch else 1
        self.global_batch = experiment.global_batch * scale
        self.learning_rate = experiment.learning_rate * scale
        self.steps = steps_per_epoch(index.rows("train"), self.global_batch)
        with strategy.scope():
            self.models = build_models(
                experiment,
                classes=len(index.classes),
                seed=task.seed,
                imagenet_weights=imagenet_weights,
            )
            self.optimizer = FusedAdam(self.learning_rate)
            self.optimizer.build(self.models.whole.trainable_variables)
        self.weights = changing_weights(self.models.whole)
        self.features = self.feature_store()
        models = self.models
        logits_of = models.logits_of_features if self.features else models.logits_of_images
        inputs = inputs_spec(features=self.features is not None)
        self.evaluator = Evaluator(strategy, logits_of, inputs)
        augmented_here = experiment.augment and not self.features
        self.training_call = training_call(
            strategy,
            logits_of,
            models.whole.trainable_variables,
            self.optimizer,
            augment_seed=task.view_seed if augmented_here else None,
        )
        self.state = TrainingState()
        self.best: list[np.ndarray] = []
        self.earlier_seconds = task.earlier_seconds
        self.startup_seconds: float | None = None
        self.asked_to_stop = False
        self.data_error: UserError | None = None
        """What went wrong in `training_data`; tf.data passes on its text, not the exception."""
        self.last_checkpoint = time.monotonic()

    @property
    def chief(self) -> bool:
        return self.place.rank == 0

    def run(self) -> str:
        """Resume, train to the end, test the best weights, record."""
        self.resume()
        if self.chief:
            self.write_config()
        if not self.ended():
            if not self.train_epochs():
                self.checkpoint()
                return "interrupted"
            self.checkpoint()
        self.test()
        return "finished"

    def ended(self) -> bool:
        return self.state.stopped_early or self.state.epoch > self.task.experiment.epochs

    # Data

    def feature_store(self) -> FeatureStore | None:
        """Features of the base, where it is frozen and they are to be kept."""
        if self.task.experiment.base_trainable or self.task.features is None:
            return None
        return FeatureStore(
            images=self.store,
            index=self.index,
            features=open_store(self.task.features, cache=self.cache, create=True),
            key=feature_key(self.task),
            base=self.models.base,
            claim=Claim(
                training=f"{self.task.run}/{self.task.experiment.name}", attempt=self.task.attempt
            ),
        )

    def view(self, epoch: int) -> int:
        """What an epoch shows of the training images."""
        experiment = self.task.experiment
        if not experiment.augment:
            return PLAIN
        return view_of(epoch, None if experiment.base_trainable else self.task.views)

    def training_rows(self) -> Iterator[tuple[int, RowBatch]]:
        """Epoch and rows of every step from where training stands to the last epoch."""
        first_step = self.state.step
        for epoch in range(self.state.epoch, self.task.experiment.epochs + 1):
            rows = training_batches(
                self.index.shard_rows("train"),
                seed=self.task.seed,
                epoch=epoch,
                global_batch=self.global_batch,
                rank=self.place.rank,
                world_size=self.place.world_size,
                first_step=first_step,
            )
            first_step = 0
            for batch in rows:
                yield epoch, batch

    def training_data(self) -> Iterator[tuple[int, int, Batch]]:
        """Epoch, view and batch of every step. One stream for all epochs, so that the next one's
        shards come while this one ends."""
        shards = len(self.index.shards("train"))
        epochs: deque[int] = deque()

        def rows() -> Iterator[RowBatch]:
            for epoch, batch in self.training_rows():
                epochs.append(epoch)
                # A shard of features is one of a view: to the stream, each view has its own.
                number = batch.shard + self.view(epoch) * shards
                yield batch._replace(shard=number) if self.features else batch

        try:
            for batch in self.stream("train", rows()):
                epoch = epochs.popleft()
                yield epoch, self.view(epoch), batch
        except UserError as error:
            self.data_error = error
            raise

    def split_data(self, split: str) -> Iterator[Batch]:
        """This worker's part of a split, for evaluation."""
        rows = evaluation_batches(
            self.index.shard_rows(split),
            batch=FEATURE_BATCH if self.features else IMAGE_BATCH,
            rank=self.place.rank,
            world_size=self.place.world_size,
        )
        return self.stream(split, rows)

    def stream(self, split: str, rows: Iterator[RowBatch]) -> Iterator[Batch]:
        if self.features is None:
            return stream(self.store, self.index, split, rows)
        features, shards = self.features, len(self.index.shards(split))
        return stream_from(
            lambda number: features.load(split, *divmod(number, shards)),
            rows,
            row_shape=(BASE_FEATURES,),
            dtype=np.float32,
        )

    # Training

    def train_epochs(self) -> bool:
        """Train until the epochs or the patience are over; False if asked to stop before."""
        events = Events(self.run_store, self.task.experiment.name) if self.chief else None
        batches = iter(
            self.strategy.distribute_datasets_from_function(
                lambda _: dataset(self.training_data, features=self.features is not None)
            )
        )
        while not self.ended():
            if not self.train_steps(batches):
                return False
            self.show("validating")
            record = self.end_epoch()
            if self.chief:
                self.write_epochs()
            if events:
                events.write(self.state.history)
            self.place.report(record)
        return True

    def train_steps(self, batches: Iterator[object]) -> bool:
        """The rest of the epoch's steps; False if asked to stop before its end."""
        while self.state.step < self.steps:
            # The first one alone, so that what takes long before it can be told apart.
            first = self.state.epoch == 1 and self.state.step == 0
            steps = 1 if first else min(STEPS_PER_CALL, self.steps - self.state.step)
            start = time.monotonic()
            try:
                loss, correct, rows, stops = self.training_call(
                    batches, tf.constant(steps), tf.constant(float(self.asked_to_stop))
                ).numpy()
            except tf.errors.OpError:
                if self.data_error:
                    raise self.data_error from None
                raise
            self.state = self.state.model_copy(
                update={
                    "step": self.state.step + steps,
                    "loss_sum": self.state.loss_sum + float(loss),
                    "correct": self.state.correct + int(correct),
                    "rows": self.state.rows + int(rows),
                    "train_seconds": self.state.train_seconds + time.monotonic() - start,
                }
            )
            if self.startup_seconds is None:
                self.startup_seconds = time.time() - self.task.command_started
            # The wish to stop went through the same sum as the losses, so that all
            # workers see it after the same step.
            if stops:
                return False
            self.show("training")
            if time.monotonic() - self.last_checkpoint >= self.task.checkpoint_seconds:
                self.checkpoint()
        return True

    def end_epoch(self) -> EpochRecord:
        """Validate, decide whether this epoch is the best, and begin the next."""
        start = time.monotonic()
        valid = self.evaluator.scores(self.split_data("valid"))
        state = self.state
        accuracy = valid.correct / valid.rows
        record = EpochRecord(
            epoch=state.epoch,
            loss=state.loss_sum / state.rows,
            accuracy=state.correct / state.rows,
            val_loss=valid.loss / valid.rows,
            val_accuracy=accuracy,
            seconds=state.train_seconds + time.monotonic() - start,
            images_per_second=state.rows / state.train_seconds,
            learning_rate=self.learning_rate,
            workers=self.place.world_size,
        )
        better = accuracy > state.best_accuracy
        if better:
            self.keep_best()
        ended = TrainingState(
            epoch=state.epoch + 1,
            history=(*state.history, record),
            best_epoch=state.epoch if better else state.best_epoch,
            best_accuracy=accuracy if better else state.best_accuracy,
        )
        stopped = ended.waited >= self.task.experiment.patience
        self.state = ended.model_copy(update={"stopped_early": stopped})
        return record

    def keep_best(self) -> None:
        """Copy the weights, over those of the best epoch so far: all at once would be a third set
        of them in memory."""
        current = self.locals(self.weights)
        self.best = self.best or [np.empty(variable.shape, np.float32) for variable in current]
        for kept, variable in zip(self.best, current, strict=True):
            kept[...] = variable.numpy()

    # Going on after an interruption

    def wall_seconds(self) -> float:
        return self.earlier_seconds + time.monotonic() - self.began

    def resume(self) -> None:
        checkpoint = load_checkpoint(self.run_store, self.task.experiment.name)
        if checkpoint is None:
            return
        self.state, self.best = checkpoint.state, checkpoint.best
        # A driver that was killed had told nothing of its last attempt.
        self.earlier_seconds = max(self.earlier_seconds, checkpoint.state.wall_seconds)
        self.assign(self.weights, checkpoint.weights)
        self.assign(self.optimizer.variables, checkpoint.optimizer)

    def checkpoint(self) -> None:
        self.last_checkpoint = time.monotonic()
        if not self.chief:
            return
        self.state = self.state.model_copy(update={"wall_seconds": self.wall_seconds()})
        save_checkpoint(
            self.run_store,
            self.task.experiment.name,
            Checkpoint(
                self.state,
                weights=self.locals(self.weights),
                optimizer=self.locals(self.optimizer.variables),
                best=self.best,
            ),
        )

    def locals(self, variables: list[tf.Variable]) -> list[tf.Variable]:
        return [local(self.strategy, variable) for variable in variables]

    def assign(self, variables: list[tf.Variable], values: list[np.ndarray]) -> None:
        for variable, value in zip(self.locals(variables), values, strict=True):
            variable.assign(value)

    # The end

    def test(self) -> None:
        """Test the best weights and write what the report reads."""
        self.show("testing")
        self.assign(self.weights, self.best)
        self.best = []  # No longer needed, and as large as the network.
        probabilities = self.evaluator.predictions(self.split_data("test"), len(self.index.classes))
        # Reading BatchNorm's moving statistics as a whole is a collective: every worker does it.
        with weights_file(self.models.whole) as weights:
            if self.chief:
                self.put(WEIGHTS, weights)
        if not self.chief:
            return
        sources, labels = sources_and_labels(self.store, self.index, "test")
        buffer = io.BytesIO()
        np.savez(buffer, source=sources, label=labels, probabilities=probabilities)
        self.put(PREDICTIONS, buffer.getvalue())
        history = self.state.history
        train_seconds = sum(self.index.rows("train") / e.images_per_second for e in history)
        # The result is written last: with it, the experiment is finished.
        self.put_record(
            RESULT,
            ExperimentResult(
                status="finished",
                workers=self.hosts,
                attempts=self.task.attempt,
                epochs_run=len(history),
                best_epoch=self.state.best_epoch,
                stopped_early=self.state.stopped_early,
                wall_seconds=self.wall_seconds(),
                startup_seconds=self.startup_seconds,
                images_per_second=len(history) * self.index.rows("train") / train_seconds,
            ),
        )
        delete_checkpoints(self.run_store, self.task.experiment.name)

    def put(self, name: str, content: bytes | Path) -> None:
        self.run_store.put(f"{self.task.experiment.name}/{name}", content)

    def put_record(self, name: str, record: Record) -> None:
        self.put(name, record.model_dump_json(indent=1).encode() + b"\n")

    def write_config(self) -> None:
        trainable, total = parameter_counts(self.models.whole)
        self.put_record(
            CONFIG,
            ExperimentConfig(
                experiment=self.task.experiment,
                seed=self.task.seed,
                layers=layer_records(self.models.whole),
                trainable_params=trainable,
                total_params=total,
            ),
        )

    def write_epochs(self) -> None:
        lines = [record.model_dump_json() for record in self.state.history]
        self.put(EPOCHS, "".join(line + "\n" for line in lines).encode())

    def show(self, phase: str) -> None:
        """Tell the driver how far we are, and hear whether it wants us to stop."""
        if not self.chief:
            return
        now = self.state
        # A wish that is heard at the end of an epoch holds for the next.
        self.asked_to_stop |= self.place.progress(
            Progress(
                epoch=len(now.history) if phase == "testing" else now.epoch,
                epochs=self.task.experiment.epochs,
                step=now.step,
                steps=self.steps,
                images_per_second=(
                    now.rows / now.train_seconds
                    if now.rows
                    else now.history[-1].images_per_second
                    if now.history
                    else 0.0
                ),
                accuracy=now.history[-1].val_accuracy if now.history else None,
                best_accuracy=now.best_accuracy if now.history else None,
                phase=phase,
            )
        )


def sources_and_labels(store: Store, index: Index, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Names (n,) as str and labels (n,) as int64 of a split, in index order."""
    sources, labels = [], []
    for info in index.shards(split):
        path = store.fetch(info.key, sha256=info.sha256, size=info.bytes)
        rows = open_shard(path, info, index)
        sources.append(np.char.decode(rows["source"], "utf-8"))
        labels.append(rows["label"].astype(np.int64))
    return np.concatenate(sources), np.concatenate(labels)
