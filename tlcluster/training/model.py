"""An experiment → its Keras models: the base, the head, and the files with their weights.

Keras here is tf_keras: Keras 3 does not run under MultiWorkerMirroredStrategy.
"""

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tlcluster.backbones import BACKBONES, Backbone
from tlcluster.errors import UserError
from tlcluster.experiments import Experiment
from tlcluster.records import LayerRecord
from tlcluster.training import draws
from tlcluster.training.base import (
    Preprocess,
    block_of,
    build_base,
    pooled,
    set_trainable,
    tapped,
    use_global_batch_norm,
    use_small_maps,
)
from tlcluster.training.batch_norm import GlobalBatchNorm
from tlcluster.training.hdf5_check import check_hdf5
from tlcluster.training.lower_part import cut, is_kept
from tlcluster.training.upsample import Upsample

DROPOUT_STREAM = 2

NOT_ITS_WEIGHTS = (
    AttributeError,
    IndexError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What Keras and h5py raise for a file with other layers than the model, or with none."""


@keras.utils.register_keras_serializable("tlcluster")
class SampleDropout(keras.layers.Layer):
    """Dropout whose mask depends on (seed, epoch, sample), not on the worker that computes it.

    Keras' own Dropout draws different numbers in every replica, so its results change with the
    number of workers.
    """

    def __init__(self, rate: float, seed: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.rate, self.seed = rate, seed

    def call(self, inputs: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
        """Args: [activations (n, units), keys int64 (n, 2)]: epoch and sample of each row."""
        activations, keys = inputs
        if not training:
            return activations
        unit = draws.uniform(
            self.seed, DROPOUT_STREAM, keys[:, 0], keys[:, 1], activations.shape[-1]
        )
        scale = tf.cast(unit >= self.rate, activations.dtype) / (1.0 - self.rate)
        return activations * scale

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


class Models(NamedTuple):
    """The network of one experiment: whole, and in two parts that share its weights.

    Keys, int64 (n, 2), are the epoch and sample of each row; only Dropout reads them. A row of
    features is what the head gets of the base, flattened as Keras' Flatten does it, or the row of
    `tlcluster.training.lower_part` if features of the frozen lower part can be kept.
    """

    whole: keras.Model
    """[float32 images (n, height, width, 3) in 0…255, keys] → float32 logits (n, classes)."""
    base: keras.Model
    """Images → features, float32 (n, numbers)."""
    head: keras.Model
    """[what the head gets of the base, flattened, keys] → logits (n, classes)."""
    norm: GlobalBatchNorm
    """Computes the BatchNorm layers of a base that is trained."""
    upper: keras.Model | None = None
    """Features of the lower part → what the head gets, float32 (n, units); None if features are
    what the head gets."""

    @property
    def feature_spec(self) -> tf.TensorSpec:
        """A batch of features, float32 (n, numbers), with any n."""
        return tf.TensorSpec(self.base.output_shape, tf.float32)

    def logits_of_images(self, images: tf.Tensor, keys: tf.Tensor, *, training: bool) -> tf.Tensor:
        """The logits of `whole`."""

        def base(shown: tf.Tensor) -> tf.Tensor:
            features = self.base(shown, training=training)
            return features if self.upper is None else self.upper(features, training=training)

        return self.head([self._padded(base, images), keys], training=training)

    def logits_of_features(
        self, features: tf.Tensor, keys: tf.Tensor, *, training: bool
    ) -> tf.Tensor:
        """The same logits, of what the frozen part of the base makes of the images."""
        if self.upper is not None:
            features = self._padded(partial(self.upper, training=training), features)
        return self.head([features, keys], training=training)

    def _padded(self, part: Callable[[tf.Tensor], tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
        """What a part of the base makes of its input. There may be no rows: oneDNN's convolutions
        refuse an empty batch, so a row of zeros takes their place and its result is dropped."""
        count = tf.shape(rows)[0]
        missing = [[0, tf.maximum(1 - count, 0)], *[[0, 0]] * (rows.shape.rank - 1)]
        with self.norm.counting(tf.cast(count > 0, tf.float32)):
            return part(tf.pad(rows, missing))[:count]


def build_models(
    experiment: Experiment,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    seed: int,
    base_seed: int | None = None,
    imagenet_weights: bytes | None,
    weights_found: str = "given",
) -> Models:
    """The models of an experiment, with their initial weights.

    Args:
        experiment: decides base, size of its input, preprocessing and head.
        image_shape: of the data set, (height, width, channels).
        classes: number of classes.
        seed: decides the random initial weights, and Dropout.
        base_seed: decides those of the base if it starts from random ones; None is `seed`.
        imagenet_weights: content of the base's HDF5 weights file; None starts the base from random
            weights.
        weights_found: where that file was found, for messages.

    Raises:
        ValueError: the images are too small for the base.
        UserError: the weights are of another base.
    """
    own_base = imagenet_weights is None and base_seed not in (None, seed)
    keras.utils.set_random_seed(base_seed if own_base else seed)
    backbone, norm = BACKBONES[experiment.base], GlobalBatchNorm()
    images = keras.Input(image_shape, name="images")
    keys = keras.Input((2,), dtype=tf.int64, name="keys")
    input_shape = experiment.input_shape(image_shape)
    base = build_base(backbone, input_shape)
    if imagenet_weights is not None:
        _load_base(base, backbone, imagenet_weights, weights_found)
    if own_base:
        keras.utils.set_random_seed(seed)
    taps = experiment.taps.split(",")
    trunk = tapped(base, taps)
    set_trainable(
        trunk,
        backbone,
        trainable=experiment.base_trainable,
        first=experiment.trainable_from,
    )
    use_global_batch_norm(trunk, norm)
    if not tf.config.list_physical_devices("GPU"):
        use_small_maps(trunk)

    shown = images
    if input_shape != image_shape:
        shown = Upsample(*input_shape[:2], experiment.upsampling, name="upsample")(shown)
    if experiment.preprocess == "base":
        shown = Preprocess(backbone.preprocessing, name="preprocess")(shown)
    features = pooled(trunk(shown), taps)
    head, layers = build_head(experiment, features.shape[1:], classes=classes, seed=seed)
    whole = keras.Model([images, keys], _applied(layers, features, keys), name=experiment.name)
    if is_kept(trunk, experiment):
        lower, upper = cut(images, shown, trunk, experiment)
        return Models(whole, lower, head, norm, upper)
    flat = keras.layers.Reshape((-1,), dtype="float32")(features)
    return Models(whole, keras.Model(images, flat), head, norm)


def build_head(
    experiment: Experiment, map_shape: tuple[int, int, int], *, classes: int, seed: int
) -> tuple[keras.Model, list[keras.layers.Layer]]:
    """The head on features, and its layers, which take a map.

    Args:
        map_shape: of the map, (height, width, channels); see `tapped_shape`.
    """
    keys = keras.Input((2,), dtype=tf.int64, name="keys")
    features = keras.Input((math.prod(map_shape),), name="features")
    layers = _head(experiment, classes=classes, seed=seed)
    # BatchNorm works on the map, so the features become a map again.
    shaped = keras.layers.Reshape(map_shape)(features)
    return keras.Model([features, keys], _applied(layers, shaped, keys)), layers


def _head(experiment: Experiment, *, classes: int, seed: int) -> list[keras.layers.Layer]:
    """[BatchNorm] → Flatten → Dense ReLU → [BatchNorm] → [Dropout] → Dense."""
    layers = [
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(experiment.dense_units, activation="relu", name="dense"),
        # float32 under mixed precision too: the loss needs the range.
        keras.layers.Dense(classes, dtype="float32", name="logits"),
    ]
    if experiment.dropout:
        layers.insert(2, SampleDropout(experiment.dropout, seed, name="dropout"))
    if experiment.batch_norm:
        layers.insert(2, keras.layers.BatchNormalization(synchronized=True, name="dense_norm"))
        layers.insert(0, keras.layers.BatchNormalization(synchronized=True, name="base_norm"))
    return layers


def _applied(layers: Sequence[keras.layers.Layer], x: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    for layer in layers:
        x = layer([x, keys]) if isinstance(layer, SampleDropout) else layer(x)
    return x


def no_keys(inputs: tf.Tensor) -> tf.Tensor:
    """Keys for a call without training: zeros, int64 (n, 2)."""
    return tf.zeros((tf.shape(inputs)[0], 2), tf.int64)


def layer_records(model: keras.Model) -> tuple[LayerRecord, ...]:
    """The layers in order from the images to the logits, with those of the base one by one."""
    records: list[LayerRecord] = []
    for layer in model.layers:
        if layer.name == "keys":
            continue
        nested = layer.layers if isinstance(layer, keras.Model) else [layer]
        for inner in nested:
            if nested is not layer and isinstance(layer, keras.Model) and inner is nested[0]:
                continue  # the base's own input repeats the model's
            records.append(_layer_record(inner, in_base=isinstance(layer, keras.Model)))
    return tuple(records)


def _layer_record(layer: keras.layers.Layer, *, in_base: bool) -> LayerRecord:
    shape = layer.output_shape
    if isinstance(shape, list):
        shape = shape[0]
    return LayerRecord(
        name=layer.name,
        kind=type(layer).__name__,
        output_shape=tuple(shape[1:]),
        params=layer.count_params(),
        trainable=bool(layer.trainable_weights),
        in_base=in_base,
        block=block_of(layer.name) if in_base else "",
    )


def base_network(model: keras.Model) -> keras.Model:
    """The base inside a whole network."""
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def changing_weights(model: keras.Model) -> list[tf.Variable]:
    """The weights that training changes: the trainable ones and BatchNorm's moving statistics.

    Frozen layers of the base have none.
    """
    layers = base_network(model).layers
    frozen = {id(v) for layer in layers if not layer.trainable for v in layer.weights}
    return [v for v in model.weights if id(v) not in frozen]


def parameter_counts(model: keras.Model) -> tuple[int, int]:
    """(trainable, total) numbers in the model's weights."""
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_weights)
    return trainable, model.count_params()


@contextlib.contextmanager
def weights_file(model: keras.Model) -> Iterator[Path]:
    """A temporary `.weights.h5` file with all weights, of base and head.

    `load_weights_file` reads it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.weights.h5"
        model.save_weights(path)
        yield path


def _load_base(base: keras.Model, backbone: Backbone, content: bytes, found: str) -> None:
    """Load ImageNet weights into a base.

    Raises:
        UserError: they are not those of this base.
    """
    try:
        load_weights_file(base, content, name="base.h5")
    except NOT_ITS_WEIGHTS as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"weights {found}: do not fit {backbone.title} ({reason[:300]}); expected Keras' "
            f"{backbone.weights_file}: replace the file by it, or name another with --weights FILE"
        ) from None


def load_weights_file(model: keras.Model, content: bytes, name: str = "model.weights.h5") -> None:
    """Load the weights of an HDF5 file into the model.

    Args:
        name: decides the layout, as in Keras: `.weights.h5` is the layout of `weights_file`, `.h5`
            the older one of the published ImageNet weights.

    Raises:
        ValueError: the file has other layers than the model, or is none that Keras writes.
    """
    check_hdf5(content)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        model.load_weights(path)
