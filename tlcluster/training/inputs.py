"""What a worker feeds its model: images from the store, or features of the frozen part of the base.

Both are values with the same fields. `inputs_for` decides between them; nothing else asks.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from tlcluster.dataset.order import RowBatch, evaluation_batches
from tlcluster.dataset.shards import Index
from tlcluster.dataset.stream import Batch, planned, stream, stream_from
from tlcluster.experiments import Experiment
from tlcluster.storage.protocol import Store
from tlcluster.training.data import image_spec
from tlcluster.training.feature_key import MIRRORED, PLAIN
from tlcluster.training.features import Claim, FeatureStore
from tlcluster.training.mixup import Mix
from tlcluster.training.model import Models
from tlcluster.training.schedule import Schedule, StepRows
from tlcluster.training.stores import Stores, refuse_full_output
from tlcluster.training.task import Task, feature_key, kept_views

IMAGE_BATCH = 256
"""Images of one evaluation step, or fewer if they are made larger: it bounds memory. Results do not
depend on it."""

FEATURE_BYTES = 2**23
"""Features of one evaluation step, at most: 4096 rows of 512, or 128 of 16,384, with which trained
blocks compute. With few rows, the call would cost more than the computation."""


class ViewShard(NamedTuple):
    """Names a shard of features: those of one view of one shard of images."""

    view: int
    shard: int
    """Position in the split."""


class Step(NamedTuple):
    """What one worker trains on in one step."""

    epoch: int
    """Counts from 1."""
    view: int
    rate: float
    """The learning rate."""
    mix: Mix
    batch: Batch


class Inputs(Protocol):
    """The inputs of one worker."""

    @property
    def spec(self) -> tf.TensorSpec:
        """Shape and dtype of a batch of inputs; the first dimension is free."""

    @property
    def logits_of(self) -> Callable[..., tf.Tensor]:
        """Inputs, keys and `training` → logits; see `tlcluster.training.model.Models`."""

    @property
    def augment_seed(self) -> int | None:
        """The seed with which the training step augments its inputs; None: it does not."""

    @property
    def evaluation_batch(self) -> int:
        """Rows of one evaluation step."""

    @property
    def computed(self) -> Mapping[str, float | None]:
        """Group of features → seconds in which this worker has computed some of them; None if it
        has read none of them. Empty if it reads images."""

    def read(self, split: str, batches: Iterable[tuple[int, RowBatch]]) -> Iterator[Batch]:
        """Read batches of a split, each given by its view and its rows, in order."""


@dataclass(frozen=True)
class ImageInputs:
    """uint8 images. The training step augments them, if they are augmented at all."""

    store: Store
    index: Index
    models: Models
    augment_seed: int | None
    evaluation_batch: int = IMAGE_BATCH
    computed: ClassVar[Mapping[str, float | None]] = {}

    @property
    def spec(self) -> tf.TensorSpec:
        return image_spec(self.index.image_shape)

    @property
    def logits_of(self) -> Callable[..., tf.Tensor]:
        return self.models.logits_of_images

    def read(self, split: str, batches: Iterable[tuple[int, RowBatch]]) -> Iterator[Batch]:
        # The reader looks ahead; `tee` keeps the views between.
        batches, ahead = itertools.tee(batches)
        read = stream(self.store, self.index, split, (rows for _, rows in ahead))
        for (view, _), batch in zip(batches, read, strict=True):
            if view == MIRRORED:
                yield batch._replace(inputs=np.ascontiguousarray(batch.inputs[:, :, ::-1]))
            else:
                yield batch


@dataclass(frozen=True)
class FeatureInputs:
    """float32 features of the frozen part of the base, of the images or of one view of them."""

    features: FeatureStore
    models: Models
    augment_seed: ClassVar[None] = None

    @property
    def units(self) -> int:
        """Numbers in a row."""
        return int(self.models.feature_spec.shape[-1])

    @property
    def evaluation_batch(self) -> int:
        return max(1, FEATURE_BYTES // (4 * self.units))

    @property
    def spec(self) -> tf.TensorSpec:
        return self.models.feature_spec

    @property
    def logits_of(self) -> Callable[..., tf.Tensor]:
        return self.models.logits_of_features

    @property
    def computed(self) -> Mapping[str, float | None]:
        return self.features.seconds

    def read(self, split: str, batches: Iterable[tuple[int, RowBatch]]) -> Iterator[Batch]:
        return stream_from(
            lambda key: self.features.load(split, key.view, key.shard),
            (planned(rows, partial(ViewShard, view)) for view, rows in batches),
            row_shape=(self.units,),
            dtype=np.float32,
        )


def images_at_once(experiment: Experiment, image_shape: tuple[int, int, int]) -> int:
    """Images of one forward pass, so that larger ones do not take more memory."""
    height, width, _ = image_shape
    seen_height, seen_width, _ = experiment.input_shape(image_shape)
    return max(1, IMAGE_BATCH * height * width // (seen_height * seen_width))


def inputs_for(
    task: Task,
    strategy: tf.distribute.Strategy,
    stores: Stores,
    index: Index,
    models: Models,
    precision: str,
) -> Inputs:
    """Features if they are kept and the base, or a part of it worth it, is frozen; else images.

    Args:
        strategy: that the models were built under.
        precision: in which the base computes.

    Raises:
        UserError: features do not fit on the disk.
    """
    experiment = task.experiment
    at_once = images_at_once(experiment, index.image_shape)
    if stores.features is None or (experiment.base_trainable and models.upper is None):
        seed = task.view_seed if experiment.augment else None
        return ImageInputs(stores.images, index, models, seed, at_once)
    features = FeatureStore(
        images=stores.images,
        index=index,
        features=stores.features,
        key=feature_key(task, index.image_shape, precision),
        base=models.base,
        strategy=strategy,
        claim=Claim(training=f"{task.run}/{task.folder}", attempt=task.attempt),
        batch=at_once,
    )
    refuse_full_output(stores.features, partial(features.missing_bytes, kept_views(task)))
    return FeatureInputs(features, models)


def training_steps(inputs: Inputs, steps: Iterable[StepRows]) -> Iterator[Step]:
    """Read the training split."""
    # The reader looks ahead; `tee` keeps the steps between.
    steps, ahead = itertools.tee(steps)
    batches = inputs.read("train", ((step.view, step.rows) for step in ahead))
    for step, batch in zip(steps, batches, strict=True):
        yield Step(step.epoch, step.view, step.rate, step.mix, batch)


def split_part(
    inputs: Inputs, index: Index, split: str, schedule: Schedule, view: int = PLAIN
) -> Iterator[Batch]:
    """This worker's part of a split, in index order, in a view without augmentation."""
    rows = evaluation_batches(
        index.shard_rows(split),
        batch=inputs.evaluation_batch,
        rank=schedule.rank,
        world_size=schedule.workers,
    )
    return inputs.read(split, ((view, batch) for batch in rows))
