"""Bases: each is the network of Keras Applications, and another one is one more value."""

from collections.abc import Iterator
from types import MappingProxyType

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tlcluster import backbones, experiments
from tlcluster.backbones import BACKBONES, Backbone
from tlcluster.experiments import EXPERIMENTS, Experiment
from tlcluster.training import model
from tlcluster.training.base import Preprocess, block_of, build_base, pooled, tapped, tapped_shape
from tlcluster.training.model import (
    Models,
    build_models,
    changing_weights,
    layer_records,
    no_keys,
    parameter_counts,
)
from tlcluster.training.small_maps import convolve

DENSENET = Backbone(
    name="densenet121",
    title="DenseNet121",
    constructor="DenseNet121",
    weights_url="https://example.org/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
    weights_md5="30ee3e1110167f948a6b9946edeeb738",
    preprocessing="torch",
    efficiency=0.4,
)

MAPS = {
    ("vgg19", (64, 64, 3)): (2, 2, 512),
    ("resnet50", (32, 32, 3)): (1, 1, 2048),
    ("resnet50", (48, 40, 3)): (2, 2, 2048),
    ("resnet50", (64, 64, 3)): (2, 2, 2048),
    ("mobilenet_v2", (32, 32, 3)): (1, 1, 1280),
    ("mobilenet_v2", (48, 40, 3)): (2, 2, 1280),
    ("mobilenet_v2", (64, 64, 3)): (2, 2, 1280),
}
"""Base and image shape → the last map of Keras' own network."""


@pytest.fixture(autouse=True)
def fresh_keras() -> Iterator[None]:
    """Forget the models of a test when it ends."""
    yield
    keras.backend.clear_session()


def built(
    name: str, base: str, shape: tuple[int, int, int] = (32, 32, 3), **changes: object
) -> Models:
    experiment = Experiment(**{**EXPERIMENTS[name].model_dump(), "base": base, **changes})
    return build_models(experiment, image_shape=shape, classes=7, seed=3, imagenet_weights=None)


def images(shape: tuple[int, int, int], count: int = 5) -> tf.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape))
    return tf.constant(pixels, tf.float32)


def base_of(models: Models) -> keras.Model:
    return next(layer for layer in models.whole.layers if isinstance(layer, keras.Model))


@pytest.mark.parametrize(("base", "shape"), MAPS)
def test_features_are_the_flattened_last_map_of_kerass_own_network(
    base: str, shape: tuple[int, int, int]
) -> None:
    models = built("frozen", base, shape, preprocess="base")
    plain = getattr(keras.applications, BACKBONES[base].constructor)(
        include_top=False, weights=None, input_shape=shape
    )
    plain.set_weights(base_of(models).get_weights())
    prepared = getattr(keras.applications, base).preprocess_input(images(shape).numpy())
    expected = plain(prepared, training=False).numpy()
    assert expected.shape[1:] == MAPS[base, shape]
    features = models.base(images(shape), training=False).numpy()
    assert features.dtype == np.float32
    assert features.shape == (5, int(np.prod(MAPS[base, shape])))
    assert models.feature_spec.is_compatible_with(tf.constant(features))
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(features, expected.reshape(5, -1), rtol=1e-4, atol=2e-5 * scale)


@pytest.mark.parametrize("base", ["vgg16", "resnet50", "mobilenet_v2"])
def test_the_head_sees_the_same_map_from_features_as_from_images(base: str) -> None:
    models = built("regularized", base, (64, 40, 3))
    height, width, channels = base_of(models).output_shape[1:]
    assert (height, width) != (1, 1)
    norm = models.whole.get_layer("base_norm")
    assert norm.moving_mean.shape == (channels,)
    norm.moving_mean.assign(tf.random.uniform((channels,), 0, 3, seed=1))
    norm.moving_variance.assign(tf.random.uniform((channels,), 1, 9, seed=2))
    pictures = images((64, 40, 3))
    keys = no_keys(pictures)
    features = models.base(pictures, training=False)
    np.testing.assert_allclose(
        models.logits_of_features(features, keys, training=False),
        models.logits_of_images(pictures, keys, training=False),
        rtol=1e-4,
        atol=1e-4,
    )


TAPS = {
    "vgg16": (["block2", "block5"], (1, 1, 128 + 512)),
    "vgg19": (["block3"], (1, 1, 256)),
    "resnet50": (["conv2_block3", "conv4_block6", "last"], (1, 1, 256 + 1024 + 2048)),
    "mobilenet_v2": (["expanded_conv", "block_13"], (1, 1, 16 + 160)),
}


@pytest.mark.parametrize("base", BACKBONES)
def test_a_base_names_its_blocks_and_taps_are_the_means_of_their_last_maps(base: str) -> None:
    whole = build_base(BACKBONES[base], (64, 40, 3))
    blocks = dict.fromkeys(block_of(layer.name) for layer in whole.layers)
    assert tuple(block for block in blocks if block) == BACKBONES[base].blocks
    taps, shape = TAPS[base]
    trunk = tapped(whole, taps)
    assert tapped_shape(trunk, taps) == shape
    assert trunk.name == whole.name
    pictures = images((64, 40, 3), 2)
    means = pooled(trunk(pictures, training=False), taps)
    assert means.shape == (2, *shape)
    start = 0
    for tap in taps:
        last = [layer for layer in whole.layers if tap in ("last", block_of(layer.name))][-1]
        expected = keras.Model(whole.input, last.output)(pictures, training=False)
        expected = expected.numpy().mean(axis=(1, 2))
        found = means[:, 0, 0, start : start + expected.shape[1]]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
        start += expected.shape[1]


@pytest.mark.parametrize("base", ["resnet50", "mobilenet_v2"])
def test_only_plain_3_by_3_convolutions_are_replaced(base: str) -> None:
    replaced = [
        layer
        for layer in base_of(built("frozen", base)).layers
        if getattr(layer, "convolution_op", None) is convolve
    ]
    # MobileNetV2 has depthwise and 1×1 convolutions, and one 3×3 convolution with stride 2.
    assert len(replaced) == (16 if base == "resnet50" else 0)


@pytest.mark.parametrize("base", ["resnet50", "mobilenet_v2"])
def test_a_frozen_base_runs_in_inference_mode_and_never_changes(base: str) -> None:
    models = built("frozen", base)
    before = [weight.numpy() for weight in base_of(models).weights]
    pictures = images((32, 32, 3))
    keys = no_keys(pictures)
    np.testing.assert_array_equal(
        models.base(pictures, training=True), models.base(pictures, training=False)
    )
    np.testing.assert_array_equal(
        models.logits_of_images(pictures, keys, training=True),
        models.logits_of_images(pictures, keys, training=False),
    )
    for weight, kept in zip(base_of(models).weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), kept)
    assert {weight.name.partition("/")[0] for weight in changing_weights(models.whole)} == {
        "dense",
        "logits",
    }


def test_a_trained_base_trains_its_batch_norm_and_changes_its_statistics() -> None:
    models = built("finetuned", "mobilenet_v2")
    changing = {id(weight) for weight in changing_weights(models.whole)}
    assert {id(weight) for weight in base_of(models).weights} < changing
    norm = base_of(models).get_layer("bn_Conv1")
    assert {id(norm.gamma), id(norm.beta)} < {id(v) for v in models.whole.trainable_variables}
    before = norm.moving_mean.numpy()
    pictures = images((32, 32, 3))
    models.logits_of_images(pictures, no_keys(pictures), training=True)
    assert not np.array_equal(norm.moving_mean.numpy(), before)


def test_batch_norm_in_training_computes_what_keras_computes() -> None:
    """On one worker, where Keras' own layer has the whole batch too."""
    models = built("finetuned", "mobilenet_v2", (64, 64, 3), preprocess="base")
    plain = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(64, 64, 3))
    plain.set_weights(base_of(models).get_weights())
    pictures = images((64, 64, 3), 12)
    expected = plain(pictures / 127.5 - 1.0, training=True).numpy()
    found = models.base(pictures, training=True).numpy().reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
    for ours, theirs in zip(base_of(models).layers, plain.layers, strict=True):
        if isinstance(theirs, keras.layers.BatchNormalization):
            np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, rtol=1e-3, atol=1e-4)
            break


def test_a_base_may_keep_its_batch_norm_frozen_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    value = BACKBONES["mobilenet_v2"]._replace(train_batch_norm=False)
    monkeypatch.setattr(model, "BACKBONES", {"mobilenet_v2": value})
    models = built("finetuned", "mobilenet_v2")
    norm = base_of(models).get_layer("bn_Conv1")
    before = norm.moving_mean.numpy()
    pictures = images((32, 32, 3))
    models.logits_of_images(pictures, no_keys(pictures), training=True)
    np.testing.assert_array_equal(norm.moving_mean.numpy(), before)
    trained = {weight.name for weight in models.whole.trainable_variables}
    assert "Conv1/kernel:0" in trained
    assert not any("bn_" in name.lower() for name in trained)


@pytest.mark.parametrize("base", ["resnet50", "mobilenet_v2"])
def test_initial_weights_depend_on_the_seed_alone(base: str) -> None:
    frozen, trained = built("frozen", base), built("finetuned", base)
    for one, other in zip(frozen.whole.get_weights(), trained.whole.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


# Records


@pytest.mark.parametrize(
    ("base", "layers", "blocks"), [("resnet50", 174, 16), ("mobilenet_v2", 153, 17)]
)
def test_layer_records_hold_every_layer_of_a_base_and_its_block(
    base: str, layers: int, blocks: int
) -> None:
    models = built("finetuned", base)
    records = layer_records(models.whole)
    inner = [record for record in records if record.in_base]
    # Without its input, which repeats the model's.
    assert len(inner) == len(base_of(models).layers) - 1 == layers
    assert [record.name for record in records if not record.in_base] == [
        "images", "flatten", "dense", "logits",
    ]  # fmt: skip
    assert len({record.block for record in inner} - {""}) == blocks
    assert sum(record.params for record in records) == parameter_counts(models.whole)[1]


@pytest.mark.parametrize(
    ("layer", "block"),
    [
        ("block1_conv1", "block1"),
        ("block5_pool", "block5"),
        ("conv1_conv", ""),
        ("conv2_block1_1_conv", "conv2_block1"),
        ("conv5_block3_out", "conv5_block3"),
        ("Conv1", ""),
        ("expanded_conv_depthwise", "expanded_conv"),
        ("block_16_project_BN", "block_16"),
        ("out_relu", ""),
        ("conv4_block24_concat", "conv4_block24"),
        ("block2a_expand_conv", "block2a"),
    ],
)
def test_the_name_of_a_layer_says_its_block(layer: str, block: str) -> None:
    assert block_of(layer) == block


# Preprocessing


@pytest.mark.parametrize(
    ("mode", "module"),
    [
        ("caffe", "vgg16"),
        ("caffe", "vgg19"),
        ("caffe", "resnet50"),
        ("tf", "mobilenet_v2"),
        ("torch", "densenet"),
    ],
)
def test_preprocessing_is_that_of_keras_applications(mode: str, module: str) -> None:
    pictures = images((32, 32, 3)).numpy()
    theirs = getattr(keras.applications, module).preprocess_input(pictures.copy())
    np.testing.assert_allclose(Preprocess(mode)(tf.constant(pictures)), theirs, atol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=lambda backbone: backbone.name)
def test_a_value_names_the_preprocessing_of_its_network(backbone: Backbone) -> None:
    pictures = images((32, 32, 3)).numpy()
    module = getattr(keras.applications, backbone.name)
    np.testing.assert_allclose(
        Preprocess(backbone.preprocessing)(tf.constant(pictures)),
        module.preprocess_input(pictures.copy()),
        atol=1e-4,
    )


def test_black_and_white_have_the_values_that_the_modes_say() -> None:
    pixels = tf.constant([[[[0.0, 0.0, 0.0], [255.0, 0.0, 127.5]]]])
    np.testing.assert_allclose(Preprocess("tf")(pixels), [[[[-1, -1, -1], [1, -1, 0]]]])
    np.testing.assert_allclose(
        Preprocess("caffe")(pixels)[0, 0],
        [[-103.939, -116.779, -123.68], [127.5 - 103.939, -116.779, 255 - 123.68]],
        rtol=1e-6,
    )


# A fifth base


def test_another_base_is_one_more_value(monkeypatch: pytest.MonkeyPatch) -> None:
    every = MappingProxyType({**BACKBONES, DENSENET.name: DENSENET})
    for module in (backbones, experiments, model):
        monkeypatch.setattr(module, "BACKBONES", every)
    models = built("regularized", "densenet121", (48, 40, 3), preprocess="base")
    pictures = images((48, 40, 3))
    logits = models.logits_of_images(pictures, no_keys(pictures), training=False)
    assert logits.shape == (5, 7)
    assert np.isfinite(logits).all()
    assert len({record.block for record in layer_records(models.whole)}) == 1 + 6 + 12 + 24 + 16


def test_no_two_bases_share_a_name_or_a_weights_file() -> None:
    assert all(name == backbone.name for name, backbone in BACKBONES.items())
    assert len({backbone.weights_file for backbone in BACKBONES.values()}) == len(BACKBONES)
