"""Trained weights → one plain Keras model: images in, probabilities out.

Training's own layers (`Upsample`, `Preprocess`, `SampleDropout`) become layers of Keras, and its
faster convolutions Keras' own, so that any program with Keras can open what is saved, and
converters meet only usual operations.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from tlcluster.backbones import BACKBONES
from tlcluster.errors import UserError
from tlcluster.experiments import Upsampling
from tlcluster.export.facts import IMAGES, PROBABILITIES
from tlcluster.export.finished import Finished
from tlcluster.training.base import build_base, pooled, tapped
from tlcluster.training.model import (
    NOT_ITS_WEIGHTS,
    SampleDropout,
    base_network,
    build_models,
    load_weights_file,
)
from tlcluster.training.upsample import weights as upsampling_weights

FIXED = ("wider", "higher", "preprocess", "mirrored")
"""Layers that do arithmetic on pixels before the base. Their weights are not trained."""


def plain_model(finished: Finished, image_shape: tuple[int, int, int]) -> keras.Model:
    """The model of a finished training.

    Args:
        finished: the training.
        image_shape: of the data set, (height, width, channels).

    Returns:
        uint8 images (n, *image_shape) → float32 probabilities (n, classes).

    Raises:
        UserError: the weights are not those of the experiment.
    """
    experiment, classes = finished.config.experiment, len(finished.manifest.dataset.classes)
    trained = build_models(
        experiment,
        image_shape=image_shape,
        classes=classes,
        seed=finished.config.seed,
        imagenet_weights=None,
    )
    try:
        load_weights_file(trained.whole, finished.weights)
    except NOT_ITS_WEIGHTS as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{experiment.name}: its weights do not fit its model ({reason}); restore the file, or "
            "train again under a new run name"
        ) from None
    seen = experiment.input_shape(image_shape)
    base = tapped(build_base(BACKBONES[experiment.base], seen), experiment.taps.split(","))
    base.set_weights(base_network(trained.whole).get_weights())
    head = [layer for layer in trained.head.layers if not isinstance(layer, _NOT_OF_THE_HEAD)]
    copies = [_copy(layer) for layer in head]

    def network(pixels: tf.Tensor) -> tf.Tensor:
        x = pixels
        if seen != image_shape:
            x = _upsampled(x, seen, experiment.upsampling)
        if experiment.preprocess == "base":
            x = _preprocessed(x, BACKBONES[experiment.base].preprocessing)
        x = pooled(_applied(base, x), experiment.taps.split(","))
        for layer in copies:
            x = layer(x)
        return keras.layers.Softmax(name=PROBABILITIES)(x)

    images = keras.Input(image_shape, dtype="uint8", name=IMAGES)
    pixels = keras.layers.Rescaling(1.0, name="pixels")(images)
    if experiment.test_views == 1:
        outputs = network(pixels)
    else:
        view = keras.Input(image_shape, name="view")
        one_view = keras.Model(view, network(view), name="one_view")
        views = [_applied(one_view, shown) for shown in (pixels, _mirrored(pixels))]
        outputs = keras.layers.Average(name="views")(views)
    model = keras.Model(images, outputs, name=experiment.name)
    for layer, copy in zip(head, copies, strict=True):
        copy.set_weights(layer.get_weights())
    return model


def forward(model: keras.Model) -> tf.types.experimental.PolymorphicFunction:
    """The model as a graph for any number of images, with a named input and a named output."""
    spec = tf.TensorSpec(model.input_shape, tf.uint8, name=IMAGES)

    @tf.function(input_signature=[spec])
    def probabilities(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {PROBABILITIES: model(images, training=False)}

    return probabilities


_NOT_OF_THE_HEAD = (keras.layers.InputLayer, keras.layers.Reshape, SampleDropout)
"""The head's inputs, and Dropout, which does nothing once a model is trained."""


def _copy(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A layer of the head as Keras has it by default."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return keras.layers.BatchNormalization(name=layer.name)
    return type(layer).from_config(layer.get_config())


def _applied(model: keras.Model, x: tf.Tensor) -> Any:
    """What a model makes of `x`, layer by layer.

    A model called as a whole would be a model inside a model, which Keras 3 reads in another way.

    Args:
        model: of one input. It calls each of its layers once; other models may call them too.
    """
    made = {id(model.input): x}
    for layer in model.layers:
        for node in layer.inbound_nodes:
            given = [id(tensor) for tensor in tf.nest.flatten(node.input_tensors)]
            if not node.is_input and all(tensor in made for tensor in given):
                inputs = tf.nest.map_structure(lambda t: made[id(t)], node.input_tensors)
                made[id(node.outputs)] = layer(inputs)
                break
    return tf.nest.map_structure(lambda tensor: made[id(tensor)], model.output)


def _upsampled(x: tf.Tensor, shape: tuple[int, int, int], method: Upsampling) -> tf.Tensor:
    """`tlcluster.training.upsample.Upsample`: a matrix product for rows, one for columns."""
    _, height, width, _ = x.shape
    x = keras.layers.Permute((1, 3, 2), name="rows")(x)
    x = _fixed("wider", upsampling_weights(width, shape[1], method).T)(x)
    x = keras.layers.Permute((2, 3, 1), name="columns")(x)
    x = _fixed("higher", upsampling_weights(height, shape[0], method).T)(x)
    return keras.layers.Permute((3, 2, 1), name="upsampled")(x)


def _preprocessed(x: tf.Tensor, mode: str) -> tf.Tensor:
    """`tlcluster.training.base.Preprocess`: a matrix and an offset for the three channels.

    They follow from what Keras' own function makes of black, red, green and blue.
    """
    colours = np.concatenate([np.zeros((1, 3)), 255.0 * np.eye(3)])
    black, *others = keras.applications.imagenet_utils.preprocess_input(colours, mode=mode)
    return _fixed("preprocess", (np.array(others) - black) / 255.0, black)(x)


def _mirrored(x: tf.Tensor) -> tf.Tensor:
    """The mirror image of each image: a permutation of the columns as a matrix product."""
    x = keras.layers.Permute((1, 3, 2), name="channels_before")(x)
    x = _fixed("mirrored", np.eye(x.shape[-1])[::-1])(x)
    return keras.layers.Permute((1, 3, 2), name="channels_last")(x)


def _fixed(
    name: str, matrix: npt.NDArray[np.floating], offset: Sequence[float] | None = None
) -> keras.layers.Dense:
    """x → x @ matrix + offset on the last axis, as a layer that is not trained."""
    rows, columns = matrix.shape
    layer = keras.layers.Dense(columns, use_bias=offset is not None, trainable=False, name=name)
    layer.build((None, rows))
    layer.set_weights([matrix] if offset is None else [matrix, np.asarray(offset)])
    return layer
