"""An experiment → its Keras model: VGG16's base, the head, and what is saved of both.

Keras here is tf_keras: Keras 3 does not run under MultiWorkerMirroredStrategy.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tlcluster.cinic10 import IMAGE_SHAPE
from tlcluster.experiments import BASE_FEATURES, Experiment
from tlcluster.records import LayerRecord
from tlcluster.training import draws
from tlcluster.training.small_maps import convolve

IMAGENET_MEANS_BGR = (103.939, 116.779, 123.68)
"""What VGG16's own `preprocess_input` subtracts (Keras Applications, mode `caffe`)."""

DROPOUT_STREAM = 2


@keras.utils.register_keras_serializable("tlcluster")
class VggPreprocess(keras.layers.Layer):
    """RGB in 0…255 → BGR less the ImageNet means; shapes stay."""

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return images[..., ::-1] - tf.constant(IMAGENET_MEANS_BGR, images.dtype)


@keras.utils.register_keras_serializable("tlcluster")
class SampleDropout(keras.layers.Layer):
    """Dropout whose mask depends on (seed, epoch, sample), not on who computes it.

    Keras' own Dropout draws anew in every replica, so that its results change
    with the number of workers.
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
    """One experiment's network, whole and in its two parts, on the same weights.

    Keys, int64 (n, 2), are the epoch and sample of each row; only Dropout reads them.
    """

    whole: keras.Model
    """[float32 images (n, 32, 32, 3) in 0…255, keys] → float32 logits (n, classes)."""
    base: keras.Model
    """Images → what the base makes of them, float32 (n, BASE_FEATURES)."""
    head: keras.Model
    """[features (n, BASE_FEATURES), keys] → logits (n, classes)."""

    def logits_of_images(self, images: tf.Tensor, keys: tf.Tensor, *, training: bool) -> tf.Tensor:
        """As `whole`, and for no images as well; oneDNN's convolutions refuse those."""
        rows = tf.shape(images)[0]
        shown = tf.pad(images, [[0, tf.maximum(1 - rows, 0)], [0, 0], [0, 0], [0, 0]])
        features = self.base(shown, training=training)
        return self.logits_of_features(features[:rows], keys, training=training)

    def logits_of_features(
        self, features: tf.Tensor, keys: tf.Tensor, *, training: bool
    ) -> tf.Tensor:
        """As `head`."""
        return self.head([features, keys], training=training)


def build_models(
    experiment: Experiment, *, classes: int, seed: int, imagenet_weights: bytes | None
) -> Models:
    """The models of an experiment, with their initial weights.

    Args:
        experiment: decides base, preprocessing and head.
        classes: number of classes.
        seed: decides the random initial weights.
        imagenet_weights: content of VGG16's HDF5 weights file; None starts the
            base from random weights.
    """
    keras.utils.set_random_seed(seed)
    images = keras.Input(IMAGE_SHAPE, name="images")
    keys = keras.Input((2,), dtype=tf.int64, name="keys")
    vgg16 = keras.applications.VGG16(include_top=False, weights=None, input_shape=IMAGE_SHAPE)
    if imagenet_weights is not None:
        load_weights_file(vgg16, imagenet_weights, name="vgg16.h5")
    vgg16.trainable = experiment.base_trainable
    if not tf.config.list_physical_devices("GPU"):
        for layer in vgg16.layers:
            if isinstance(layer, keras.layers.Conv2D):
                # All of VGG16's convolutions are 3×3 with stride 1, and Keras lets the operation
                # be replaced. The layers stay Conv2D by name, so any Keras reads their weights.
                layer.convolution_op = convolve

    prepare = VggPreprocess(name="preprocess") if experiment.preprocess == "base" else None
    x = vgg16(prepare(images) if prepare else images)
    logits, layers = _head(x, keys, experiment, classes=classes, seed=seed)

    # The same layers once more, on features: the last map is 1×1, so a row is the map.
    features = keras.Input((BASE_FEATURES,), name="features")
    y = keras.layers.Reshape((1, 1, BASE_FEATURES))(features)
    for layer in layers:
        y = layer([y, keys]) if isinstance(layer, SampleDropout) else layer(y)
    return Models(
        whole=keras.Model([images, keys], logits, name=experiment.name),
        base=keras.Model(images, keras.layers.Reshape((BASE_FEATURES,), dtype="float32")(x)),
        head=keras.Model([features, keys], y),
    )


def _head(
    x: tf.Tensor, keys: tf.Tensor, experiment: Experiment, *, classes: int, seed: int
) -> tuple[tf.Tensor, list[keras.layers.Layer]]:
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
    for layer in layers:
        x = layer([x, keys]) if isinstance(layer, SampleDropout) else layer(x)
    return x, layers


def no_keys(inputs: tf.Tensor) -> tf.Tensor:
    """The second input where nothing is trained: zeros, int64 (n, 2)."""
    return tf.zeros((tf.shape(inputs)[0], 2), tf.int64)


def layer_records(model: keras.Model) -> tuple[LayerRecord, ...]:
    """The layers in order from the images to the logits, VGG16's own ones in their place."""
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
    )


def changing_weights(model: keras.Model) -> list[tf.Variable]:
    """What training changes: the trainable variables and BatchNorm's moving statistics."""
    base = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    frozen = {id(v) for v in base.weights} if not base.trainable else set()
    return [v for v in model.weights if id(v) not in frozen]


def parameter_counts(model: keras.Model) -> tuple[int, int]:
    """(trainable, total) numbers in the model's weights."""
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_weights)
    return trainable, model.count_params()


@contextlib.contextmanager
def weights_file(model: keras.Model) -> Iterator[Path]:
    """All weights, base and head, in a `.weights.h5` file for as long as the block.

    `load_weights_file` is its inverse.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.weights.h5"
        model.save_weights(path)
        yield path


def load_weights_file(model: keras.Model, content: bytes, name: str = "model.weights.h5") -> None:
    """Put the weights of an HDF5 file into the model.

    Args:
        name: decides the layout, as in Keras: `.weights.h5` is what `weights_file`
            writes, a plain `.h5` is the older one of the published ImageNet weights.

    Raises:
        ValueError: the file's layers are not the model's.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        model.load_weights(path)
