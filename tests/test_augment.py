"""Augmentation: Keras' pictures, and the same picture for the same (seed, view, sample)."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tf_keras.preprocessing.image import ImageDataGenerator

from tlcluster import augment, draws


@pytest.fixture(scope="module")
def images(sample_images: np.ndarray) -> np.ndarray:
    return sample_images[:200]


def view_of(images: np.ndarray, seed: int, view: int, samples: np.ndarray) -> np.ndarray:
    return augment.augment(
        tf.constant(images),
        seed=seed,
        view=tf.constant(view, tf.int64),
        samples=tf.constant(samples, tf.int64),
    ).numpy()


def generator() -> ImageDataGenerator:
    return ImageDataGenerator(
        rotation_range=20,
        width_shift_range=0.2,
        height_shift_range=0.2,
        shear_range=0.2,
        zoom_range=0.2,
        horizontal_flip=True,
        fill_mode="nearest",
    )


@settings(max_examples=60, deadline=None)
@given(unit=st.lists(st.floats(0, 1 - 2**-24), min_size=7, max_size=7))
def test_the_same_parameters_give_the_picture_that_keras_gives(
    sample_images: np.ndarray, unit: list[float]
) -> None:
    image = sample_images[0].astype(np.float32)
    ours = augment.warp(
        tf.constant(image[None]), augment.transforms(tf.constant([unit], tf.float32), 32, 32)
    )[0].numpy()
    spread = 2 * np.array(unit, np.float32) - 1
    theirs = generator().apply_transform(
        image,
        {
            "theta": spread[0] * 20,
            "tx": spread[1] * 0.2 * 32,
            "ty": spread[2] * 0.2 * 32,
            "shear": spread[3] * 0.2,
            "zx": 0.8 + unit[4] * 0.4,
            "zy": 0.8 + unit[5] * 0.4,
            "flip_horizontal": unit[6] < 0.5,
        },
    )
    np.testing.assert_allclose(ours, theirs, atol=0.05)


def test_statistics_match_those_of_image_data_generator(images: np.ndarray) -> None:
    np.random.seed(0)
    keras = generator()
    theirs = np.stack([keras.random_transform(i.astype(np.float32)) for i in images for _ in "12345"])
    ours = np.concatenate([view_of(images, 0, view, np.arange(len(images))) for view in range(5)])
    assert ours.mean() == pytest.approx(theirs.mean(), abs=1.0)
    assert ours.std() == pytest.approx(theirs.std(), abs=1.0)
    # The mean picture and the mean horizontal and vertical differences, which blur lowers.
    assert np.abs(ours.mean(0) - theirs.mean(0)).mean() < 3.0
    for axis in (1, 2):
        assert np.abs(np.diff(ours, axis=axis)).mean() == pytest.approx(
            np.abs(np.diff(theirs, axis=axis)).mean(), rel=0.05
        )


def test_a_picture_depends_on_seed_view_and_sample_only(images: np.ndarray) -> None:
    samples = np.arange(100, 300)
    whole = view_of(images, 7, 3, samples)
    shuffled = np.random.default_rng(1).permutation(200)
    np.testing.assert_array_equal(
        view_of(images[shuffled], 7, 3, samples[shuffled]), whole[shuffled]
    )
    np.testing.assert_array_equal(view_of(images[5:6], 7, 3, samples[5:6]), whole[5:6])
    for other in (
        view_of(images, 8, 3, samples),
        view_of(images, 7, 4, samples),
        view_of(images, 7, 3, samples + 1),
    ):
        assert np.mean(np.any(other != whole, axis=(1, 2, 3))) > 0.95


def test_eager_graph_and_map_give_the_same_picture(images: np.ndarray) -> None:
    samples = np.arange(len(images))
    dataset = tf.data.Dataset.from_tensors((images, samples)).map(
        lambda i, s: augment.augment(i, seed=1, view=tf.constant(2, tf.int64), samples=s)
    )
    np.testing.assert_array_equal(next(iter(dataset)).numpy(), view_of(images, 1, 2, samples))


def test_draws_are_uniform_and_independent() -> None:
    unit = draws.uniform(
        524, 1, tf.constant(0, tf.int64), tf.range(20_000, dtype=tf.int64), 7
    ).numpy()
    assert unit.min() >= 0
    assert unit.max() < 1
    counts = np.stack([np.histogram(column, 20, (0, 1))[0] for column in unit.T])
    chi_square = ((counts - 1000) ** 2 / 1000).sum(1)
    assert (chi_square < 43.8).all()  # 99.9 % of 19 degrees of freedom
    assert np.abs(np.corrcoef(unit.T) - np.eye(7)).max() < 0.03
    assert np.abs(np.corrcoef(unit[:-1, 0], unit[1:, 0])[0, 1]) < 0.03


def test_the_draws_never_change_silently() -> None:
    unit = draws.uniform(
        524, 1, tf.constant(3, tf.int64), tf.constant([0, 1, 2**33 + 5], tf.int64), 2
    )
    assert unit.numpy().tolist() == [
        [0.4481472969055176, 0.6684548854827881],
        [0.04440665245056152, 0.49289339780807495],
        [0.16598373651504517, 0.631822943687439],
    ]
