"""A backbone → its Keras network, and its preprocessing as a layer."""

import re
from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from tlcluster.backbones import FIRST, LAST, Backbone
from tlcluster.training.batch_norm import GlobalBatchNorm
from tlcluster.training.small_maps import convolve, replaces

_BLOCK = re.compile(r"((?:conv\d+_)?block_?\d+[a-z]?|expanded_conv)_")


@keras.utils.register_keras_serializable("tlcluster")
class Preprocess(keras.layers.Layer):
    """RGB in 0…255 → the input that a base was trained on; the shape stays the same."""

    def __init__(self, mode: str, **kwargs: object) -> None:
        """
        Args:
            mode: `caffe`, `tf` or `torch`; see `Backbone.preprocessing`.
        """
        super().__init__(**kwargs)
        self.mode = mode

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return keras.applications.imagenet_utils.preprocess_input(images, mode=self.mode)

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "mode": self.mode}


def build_base(backbone: Backbone, image_shape: tuple[int, int, int]) -> keras.Model:
    """The network of a backbone, with random weights and Keras' own operations.

    Args:
        image_shape: (height, width, channels).

    Returns:
        A model from images (n, *image_shape) to the last map (n, height, width, channels).

    Raises:
        ValueError: the images are smaller than `Backbone.smallest_side`.
    """
    constructor = getattr(keras.applications, backbone.constructor)
    return constructor(include_top=False, weights=None, input_shape=image_shape)


def tapped(base: keras.Model, taps: Sequence[str]) -> keras.Model:
    """The part of a base that the head needs.

    Args:
        base: see `build_base`.
        taps: blocks of the base, in its order; `LAST` is its last map.

    Returns:
        The base itself if only its last map is tapped. Otherwise a model of the same name with the
        same layers and weights, up to the highest tap: images → the last map of each block, a list
        if there are several.
    """
    if list(taps) == [LAST]:
        return base
    maps = {block_of(layer.name): layer.output for layer in base.layers} | {LAST: base.output}
    outputs = [maps[tap] for tap in taps]
    return keras.Model(base.input, outputs if len(outputs) > 1 else outputs[0], name=base.name)


def tapped_shape(trunk: keras.Model, taps: Sequence[str]) -> tuple[int, int, int]:
    """Shape of what the head gets, (height, width, channels).

    Args:
        trunk: of `tapped`.
        taps: its taps.
    """
    shape = trunk.output_shape
    if list(taps) == [LAST]:
        return shape[1:]
    return (1, 1, sum(one[-1] for one in (shape if isinstance(shape, list) else [shape])))


def pooled(maps: Sequence[tf.Tensor] | tf.Tensor, taps: Sequence[str]) -> tf.Tensor:
    """What the head gets of the maps of `tapped`: the last map, or the means of the channels.

    Args:
        maps: (n, height, width, channels) each, Keras tensors.
        taps: their names.

    Returns:
        (n, height, width, channels), or float32 (n, 1, 1, all channels).
    """
    if list(taps) == [LAST]:
        return maps
    means = [
        keras.layers.GlobalAveragePooling2D(keepdims=True, dtype="float32", name=f"{tap}_mean")(one)
        for tap, one in zip(taps, maps if len(taps) > 1 else [maps], strict=True)
    ]
    if len(means) == 1:
        return means[0]
    return keras.layers.Concatenate(dtype="float32", name="means")(means)


def set_trainable(
    base: keras.Model, backbone: Backbone, *, trainable: bool, first: str = FIRST
) -> None:
    """Freeze a base, or let it be trained.

    The BatchNorm layers of a frozen base run in inference mode: Keras does so if a layer is not
    trainable, also in a call with `training=True`.

    Args:
        base: of `tapped`.
        backbone: what it was built from.
        trainable: whether any of it is trained.
        first: the block from which on it is trained; `FIRST` trains all of it.
    """
    base.trainable = trainable
    for layer in _batch_norms(base):
        layer.trainable = trainable and backbone.train_batch_norm
    if trainable:
        for layer in below(base, first):
            layer.trainable = False


def below(base: keras.Model, first: str) -> list[keras.layers.Layer]:
    """The layers between the images and a block; none for `FIRST`."""
    if first == FIRST:
        return []
    blocks = [block_of(layer.name) for layer in base.layers]
    return base.layers[: blocks.index(first)]


def trained_share(base: keras.Model, first: str) -> float:
    """Share of a forward pass that is computed in the block `first` and those above it."""
    frozen = below(base, first)
    if not any(layer.weights for layer in frozen):
        return 1.0
    # All paths through a base meet between two blocks.
    return 1.0 - forward_flop(keras.Model(base.input, frozen[-1].output)) / forward_flop(base)


def use_global_batch_norm(base: keras.Model, norm: GlobalBatchNorm) -> None:
    """Let the BatchNorm layers that are trained use the statistics of the global batch."""
    for layer in _batch_norms(base):
        if layer.trainable:
            norm.replace_in(layer)


def _batch_norms(base: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in base.layers if isinstance(layer, keras.layers.BatchNormalization)]


def use_small_maps(base: keras.Model) -> None:
    """Let the convolutions that `small_maps` can replace use it.

    Keras allows the operation of a layer to be replaced. The layers are still Conv2D by name, so
    Keras alone can read their weights.
    """
    for layer in base.layers:
        if replaces(layer):
            layer.convolution_op = convolve


def forward_flop(base: keras.Model) -> int:
    """Floating-point operations of a forward pass for one image, from tracing it.

    A multiplication and an addition are two operations. Operations that TensorFlow's profiler
    does not count, such as BatchNorm, are a small part.

    Args:
        base: with Keras' own operations; see `build_base`.
    """
    image = tf.TensorSpec((1, *base.input_shape[1:]), tf.float32)
    forward = tf.function(lambda images: base(images, training=False))
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    profile = tf.compat.v1.profiler.profile(
        forward.get_concrete_function(image).graph, options={**options, "output": "none"}
    )
    return int(profile.total_float_ops)


def block_of(layer: str) -> str:
    """Name of the block that a base's layer is in, from the layer's name; "" if in none.

    The names are those of Keras Applications: `block1` for VGG16's `block1_conv1`, `conv2_block1`
    for ResNet50's `conv2_block1_1_conv`, `block_1` for MobileNetV2's `block_1_expand`.
    """
    found = _BLOCK.match(layer)
    return found[1] if found else ""
