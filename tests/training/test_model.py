"""Models: the study's parameter counts, one set of weights in every form, Dropout by sample."""

import io
from collections.abc import Iterator
from pathlib import Path

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcluster.errors import UserError
from tlcluster.experiments import EXPERIMENTS, Experiment
from tlcluster.training.model import (
    Models,
    SampleDropout,
    build_models,
    changing_weights,
    layer_records,
    load_weights_file,
    no_keys,
    parameter_counts,
    weights_file,
)
from tlcluster.training.upsample import Upsample

SHAPE = (32, 32, 3)

BASE_PARAMETERS = 14_714_688
"""VGG16 without its top."""

TRAINABLE = {
    "frozen": 267_786,
    "augmented": 267_786,
    "regularized": 269_834,
    "finetuned": 14_982_474,
}

VGG16 = [
    "block1_conv1",
    "block1_conv2",
    "block1_pool",
    "block2_conv1",
    "block2_conv2",
    "block2_pool",
    "block3_conv1",
    "block3_conv2",
    "block3_conv3",
    "block3_pool",
    "block4_conv1",
    "block4_conv2",
    "block4_conv3",
    "block4_pool",
    "block5_conv1",
    "block5_conv2",
    "block5_conv3",
    "block5_pool",
]

HEADS = {
    "frozen": ["flatten", "dense", "logits"],
    "augmented": ["flatten", "dense", "logits"],
    "regularized": ["base_norm", "flatten", "dense", "dense_norm", "dropout", "logits"],
    "finetuned": ["flatten", "dense", "logits"],
}


@pytest.fixture(autouse=True)
def fresh_keras() -> Iterator[None]:
    """Forget the models of a test when it ends."""
    yield
    keras.backend.clear_session()


def built(name: str, weights: bytes | None = None, seed: int = 524, **changes: object) -> Models:
    experiment = Experiment(**{**EXPERIMENTS[name].model_dump(), **changes})
    return build_models(
        experiment, image_shape=SHAPE, classes=10, seed=seed, imagenet_weights=weights
    )


def values(model: keras.Model) -> list[np.ndarray]:
    return [variable.numpy() for variable in model.weights]


def test_seeds_of_a_run_share_a_random_base_and_have_heads_of_their_own() -> None:
    def both(seed: int, base_seed: int | None) -> tuple[list[np.ndarray], list[np.ndarray]]:
        models = build_models(
            EXPERIMENTS["frozen"],
            image_shape=SHAPE,
            classes=10,
            seed=seed,
            base_seed=base_seed,
            imagenet_weights=None,
        )
        return values(models.base), values(models.head)

    (base, head), (same_base, same_head) = both(1, None), both(1, 1)
    shared, other = both(2, 1)
    assert all(map(np.array_equal, base, same_base))
    assert all(map(np.array_equal, head, same_head))
    assert all(map(np.array_equal, base, shared))
    assert not np.array_equal(head[0], other[0])


def logits_of(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    inputs = tf.constant(inputs, tf.float32)
    return model([inputs, no_keys(inputs)], training=False).numpy()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_parameter_counts_are_those_of_the_study(name: str) -> None:
    trainable, total = parameter_counts(built(name).whole)
    assert trainable == TRAINABLE[name]
    # BatchNorm's moving means and variances are numbers that are not trained.
    moving = 2 * (512 + 512) if name == "regularized" else 0
    assert total == BASE_PARAMETERS + moving + (
        trainable - BASE_PARAMETERS if name == "finetuned" else trainable
    )


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_layer_records_lead_from_the_image_through_the_base_to_the_logits(name: str) -> None:
    models = built(name)
    records = layer_records(models.whole)
    assert [record.name for record in records] == ["images", *VGG16, *HEADS[name]]
    assert [record.name for record in records if record.in_base] == VGG16
    assert {record.name for record in records if record.in_base and record.trainable} == (
        {layer for layer in VGG16 if "conv" in layer} if name == "finetuned" else set()
    )
    by_name = {record.name: record for record in records}
    assert by_name["images"].kind == "InputLayer"
    assert by_name["block1_conv1"].output_shape == (32, 32, 64)
    assert by_name["block5_pool"].output_shape == (1, 1, 512)
    assert by_name["flatten"].output_shape == (512,)
    assert by_name["logits"].output_shape == (10,)
    assert by_name["dense"].trainable
    assert by_name["block3_conv2"].block == "block3"
    assert by_name["dense"].block == ""
    assert sum(record.params for record in records) == parameter_counts(models.whole)[1]


def test_preprocessing_is_a_layer_between_image_and_base() -> None:
    names = [record.name for record in layer_records(built("frozen", preprocess="base").whole)]
    assert names[:3] == ["images", "preprocess", "block1_conv1"]


def test_images_are_made_larger_between_the_input_and_the_base(sample_images: np.ndarray) -> None:
    models = built("frozen", seed=1, input_size=64, preprocess="base")
    records = {record.name: record for record in layer_records(models.whole)}
    assert list(records)[:4] == ["images", "upsample", "preprocess", "block1_conv1"]
    assert records["images"].output_shape == (32, 32, 3)
    assert records["block1_conv1"].output_shape == (64, 64, 64)
    assert models.base.output_shape == (None, 2 * 2 * 512)
    images = tf.constant(sample_images[:2], tf.float32)
    larger = build_models(
        EXPERIMENTS["frozen"].model_copy(update={"preprocess": "base"}),
        image_shape=(64, 64, 3),
        classes=10,
        seed=1,
        imagenet_weights=None,
    )
    np.testing.assert_allclose(
        models.base(images),
        larger.base(Upsample(64, 64, "bicubic")(images)),
        rtol=1e-5,
        atol=1e-6,
    )


def test_taps_are_layers_between_the_base_and_the_head_and_the_rest_of_the_base_is_left_out() -> (
    None
):
    models = built("regularized", taps="block3,block4")
    records = layer_records(models.whole)
    means = ["block3_mean", "block4_mean", "means"]
    assert [record.name for record in records] == [
        "images",
        *VGG16[: VGG16.index("block5_conv1")],
        *means,
        *HEADS["regularized"],
    ]
    by_name = {record.name: record for record in records}
    assert [by_name[name].output_shape for name in means] == [(1, 1, 256), (1, 1, 512), (1, 1, 768)]
    assert by_name["base_norm"].output_shape == (1, 1, 768)
    assert models.base.output_shape == (None, 768)


def test_taps_start_from_the_published_weights(
    imagenet_weights: bytes, sample_images: np.ndarray
) -> None:
    images = tf.constant(sample_images[:4], tf.float32)
    tapped, plain = (
        built("frozen", imagenet_weights, taps=taps).base(images) for taps in ("block5", "last")
    )
    np.testing.assert_allclose(tapped, plain, rtol=1e-5)  # the mean of one pixel


@pytest.mark.parametrize("preprocess", ["raw", "base"])
@pytest.mark.parametrize("name", ["frozen", "regularized"])
def test_the_whole_is_the_head_of_the_base(
    name: str, preprocess: str, imagenet_weights: bytes, sample_images: np.ndarray
) -> None:
    models = built(name, imagenet_weights, preprocess=preprocess)
    for layer in models.whole.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # As trained as any: the initial statistics would hide a layer left out.
            layer.moving_mean.assign(tf.random.uniform((512,), 0, 3, seed=1))
            layer.moving_variance.assign(tf.random.uniform((512,), 1, 9, seed=2))
    features = models.base(tf.constant(sample_images[:64], tf.float32), training=False).numpy()
    assert features.shape == (64, 512)
    assert features.dtype == np.float32
    assert features.std() > 1  # of real images, with real weights
    np.testing.assert_allclose(
        logits_of(models.head, features),
        logits_of(models.whole, sample_images[:64]),
        rtol=1e-5,
        atol=1e-5,
    )


def test_the_base_starts_from_the_published_weights(imagenet_weights: bytes) -> None:
    models = built("frozen", imagenet_weights)
    vgg16 = models.whole.get_layer("vgg16")
    with h5py.File(io.BytesIO(imagenet_weights)) as file:
        for layer in filter(lambda layer: layer.weights, vgg16.layers):
            stored = [file[layer.name][name][()] for name in file[layer.name].attrs["weight_names"]]
            assert len(stored) == len(layer.weights)
            for ours, theirs in zip(layer.weights, stored, strict=True):
                np.testing.assert_array_equal(ours.numpy(), theirs)


@pytest.mark.parametrize("name", ["regularized", "finetuned"])
def test_a_weights_file_brings_all_weights_back(name: str, sample_images: np.ndarray) -> None:
    saved = built(name, seed=1).whole
    loaded = built(name, seed=2).whole
    before = logits_of(saved, sample_images[:8])
    assert not np.array_equal(logits_of(loaded, sample_images[:8]), before)
    with weights_file(saved) as path:
        load_weights_file(loaded, path.read_bytes())
    for ours, theirs in zip(loaded.weights, saved.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    np.testing.assert_array_equal(logits_of(loaded, sample_images[:8]), before)


def test_the_weights_of_another_model_are_refused() -> None:
    with (
        weights_file(built("frozen").whole) as path,
        pytest.raises(ValueError, match="expected 4 variables"),
    ):
        load_weights_file(built("regularized").whole, path.read_bytes())


def saved(layers: list[keras.layers.Layer], folder: Path) -> bytes:
    """A weights file of Keras' older layout, as the published ones are."""
    path = folder / "weights.h5"
    keras.Sequential([keras.Input(SHAPE), *layers]).save_weights(path)
    return path.read_bytes()


@pytest.mark.parametrize("content", ["fewer layers", "other shapes", "cut off", "no layers"])
def test_weights_of_another_base_are_one_line_with_the_file_and_the_expected_one(
    content: str, tmp_path: Path
) -> None:
    convolutions = [keras.layers.Conv2D(7, 1) for _ in range(13)]
    files = {
        "fewer layers": saved([keras.layers.Flatten(), keras.layers.Dense(2)], tmp_path),
        "other shapes": saved(convolutions, tmp_path),
        "no layers": saved([keras.layers.Flatten()], tmp_path),
    }
    files["cut off"] = files["other shapes"][:2000]
    with pytest.raises(UserError) as caught:
        build_models(
            EXPERIMENTS["frozen"],
            image_shape=SHAPE,
            classes=10,
            seed=1,
            imagenet_weights=files[content],
            weights_found="/data/vgg16.h5",
        )
    message = str(caught.value)
    assert message.startswith("weights /data/vgg16.h5: do not fit VGG16 (")
    assert "expected Keras' vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5" in message
    assert message.endswith("or name another with --weights FILE")
    assert "\n" not in message


@pytest.mark.parametrize("name", ["regularized", "finetuned"])
def test_the_same_seed_gives_the_same_initial_weights(name: str) -> None:
    first, again, other = (
        [weight.numpy() for weight in built(name, seed=seed).whole.weights] for seed in (7, 7, 8)
    )
    for ours, theirs in zip(first, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    drawn = [ours for ours in first if len(np.unique(ours)) > 1]
    assert len(drawn) == 15  # the kernels of 13 convolutions and 2 dense layers
    for ours, theirs in zip(first, other, strict=True):
        if len(np.unique(ours)) > 1:
            assert not np.array_equal(ours, theirs)


def test_what_training_changes_leaves_a_frozen_base_out() -> None:
    def names(model: keras.Model) -> list[str]:
        return [weight.name.removesuffix(":0") for weight in changing_weights(model)]

    assert names(built("frozen").whole) == [
        "dense/kernel",
        "dense/bias",
        "logits/kernel",
        "logits/bias",
    ]
    regularized = names(built("regularized").whole)
    assert len(regularized) == 12
    assert {"base_norm/moving_mean", "dense_norm/moving_variance"} < set(regularized)
    finetuned = built("finetuned").whole
    assert len(changing_weights(finetuned)) == len(finetuned.weights) == 30


@pytest.mark.parametrize("first", ["block4", "block1"])
def test_a_base_is_trained_from_a_block_on(first: str) -> None:
    models = built("finetuned", trainable_from=first)
    trained = [layer for layer in VGG16[VGG16.index(f"{first}_conv1") :] if "conv" in layer]
    records = layer_records(models.whole)
    assert [one.name for one in records if one.in_base and one.trainable] == trained
    changing = {weight.name.partition("/")[0] for weight in changing_weights(models.whole)}
    assert changing == {*trained, "dense", "logits"}


# Dropout


def dropped(
    rate: float, seed: int, epoch: int, samples: list[int], units: int = 64, training: bool = True
) -> np.ndarray:
    """What Dropout makes of ones."""
    keys = tf.constant([[epoch, sample] for sample in samples], tf.int64)
    layer = SampleDropout(rate, seed)
    return layer([tf.ones((len(samples), units)), keys], training=training).numpy()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    epoch=st.integers(1, 300),
    samples=st.lists(st.integers(0, 10**6), min_size=1, max_size=12, unique=True),
    data=st.data(),
)
def test_a_sample_has_the_same_mask_wherever_it_stands(
    seed: int, epoch: int, samples: list[int], data: st.DataObject
) -> None:
    masks = dict(zip(samples, dropped(0.2, seed, epoch, samples), strict=True))
    elsewhere = data.draw(st.permutations(samples))[: data.draw(st.integers(1, len(samples)))]
    for sample, mask in zip(elsewhere, dropped(0.2, seed, epoch, elsewhere), strict=True):
        np.testing.assert_array_equal(mask, masks[sample])


def test_another_seed_epoch_or_sample_has_another_mask() -> None:
    mask = dropped(0.2, 524, 3, [17])
    for other in (
        dropped(0.2, 525, 3, [17]),
        dropped(0.2, 524, 4, [17]),
        dropped(0.2, 524, 3, [9]),
    ):
        assert not np.array_equal(mask, other)


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
def test_dropout_drops_its_rate_and_keeps_the_mean(rate: float) -> None:
    out = dropped(rate, 524, 1, list(range(2000)), units=512)
    assert np.mean(out == 0) == pytest.approx(rate, abs=0.002)
    np.testing.assert_allclose(out[out != 0], 1 / (1 - rate), rtol=1e-6)
    assert out.mean() == pytest.approx(1, abs=0.02)


def test_dropout_does_nothing_outside_training() -> None:
    np.testing.assert_array_equal(dropped(0.2, 524, 1, [1, 2, 3], training=False), 1)


def test_a_model_with_dropout_depends_on_epoch_and_sample_in_training_only() -> None:
    model = built("regularized").head
    features = tf.random.uniform((16, 512), 0, 9, seed=1)

    def run(epoch: int, *, training: bool) -> np.ndarray:
        keys = tf.stack([tf.fill((16,), epoch), tf.range(16)], axis=1)
        return model([features, tf.cast(keys, tf.int64)], training=training).numpy()

    assert not np.array_equal(run(1, training=True), run(2, training=True))
    np.testing.assert_array_equal(run(1, training=False), run(2, training=False))


@pytest.mark.parametrize("name", ["regularized", "finetuned"])
def test_the_functions_on_images_and_on_features_are_the_models(
    name: str, sample_images: np.ndarray
) -> None:
    models = built(name, seed=1)
    images = tf.constant(sample_images[:5], tf.float32)
    keys = no_keys(images)
    expected = models.whole([images, keys], training=False)
    np.testing.assert_allclose(
        models.logits_of_images(images, keys, training=False), expected, atol=1e-5
    )
    features = models.base(images, training=False)
    np.testing.assert_allclose(
        models.logits_of_features(features, keys, training=False), expected, atol=1e-5
    )


@pytest.mark.parametrize(
    ("first", "taps", "numbers", "means"),
    [
        ("block4", "last", 4 * 4 * 256, []),
        (
            "block5",
            "block3,block4,last",
            2 * 2 * 512 + 256 + 512,
            ["block3_mean", "block4_mean", "last_mean", "means"],
        ),
    ],
)
def test_upper_blocks_are_trained_alike_on_images_and_on_features_of_the_frozen_blocks(
    first: str, taps: str, numbers: int, means: list[str], sample_images: np.ndarray
) -> None:
    models = built("finetuned", seed=1, trainable_from=first, taps=taps)
    assert models.base.output_shape == (None, numbers)
    images = tf.constant(sample_images[:5], tf.float32)
    keys, trained = no_keys(images), models.whole.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        of_images = models.logits_of_images(images, keys, training=True)
        features = models.base(images, training=False)
        of_features = models.logits_of_features(features, keys, training=True)
    for logits in (of_images, of_features):
        expected = models.whole([images, keys], training=False)
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    for one, other in zip(
        *(tape.gradient(x, trained) for x in (of_images, of_features)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(one).max())
        assert np.any(one)
    # Records and the weights file are those of the whole, which is not cut.
    names = [record.name for record in layer_records(models.whole)]
    assert names == ["images", *VGG16, *means, *HEADS["finetuned"]]


@pytest.mark.parametrize("of", ["images", "features"])
def test_nothing_has_no_logits_and_gradients_of_zero(of: str) -> None:
    models = built("finetuned", seed=1, trainable_from="block5" if of == "features" else "first")
    logits_of = models.logits_of_features if of == "features" else models.logits_of_images

    @tf.function
    def train(images: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            logits = logits_of(images, no_keys(images), training=True)
        return logits, tape.gradient(logits, models.whole.trainable_variables)

    logits, gradients = train(tf.zeros((0, 2048) if of == "features" else (0, 32, 32, 3)))
    assert logits.shape == (0, 10)
    assert len(gradients) == len(models.whole.trainable_variables)
    assert not any(np.any(gradient) for gradient in gradients)
