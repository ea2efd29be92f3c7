"""Augmentation: Keras' pictures, and the same picture for the same (seed, view, sample)."""

from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tf_keras.preprocessing.image import ImageDataGenerator

from tlcluster.experiments import AugmentationName
from tlcluster.training import augment, draws

# Keras reads this function of SciPy under the name it had in 2015.
pytestmark = pytest.mark.filterwarnings("ignore:Please import `affine_transform`")


@pytest.fixture(scope="module")
def images(sample_images: np.ndarray) -> np.ndarray:
    return sample_images[:200]


STUDY = augment.AUGMENTATIONS["study"]


def view_of(
    images: np.ndarray,
    seed: int,
    view: int,
    samples: np.ndarray,
    how: augment.Augmentation = STUDY,
) -> np.ndarray:
    return augment.augment(
        tf.constant(images),
        how,
        seed=seed,
        view=tf.constant(view, tf.int64),
        samples=tf.constant(samples, tf.int64),
    ).numpy()


def generator() -> ImageDataGenerator:
    """The study's arguments."""
    return ImageDataGenerator(
        rotation_range=20,
        width_shift_range=0.2,
        height_shift_range=0.2,
        shear_range=0.2,
        zoom_range=0.2,
        horizontal_flip=True,
        fill_mode="nearest",
    )


def by_keras(image: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """What Keras makes of an image with the parameters that seven uniform draws stand for."""
    spread = 2 * unit - 1
    return generator().apply_transform(
        image.astype(np.float32),
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


@settings(max_examples=60, deadline=None)
@given(unit=st.lists(st.floats(0, 1 - 2**-24), min_size=7, max_size=7))
def test_the_same_parameters_give_the_picture_that_keras_gives(
    sample_images: np.ndarray, unit: list[float]
) -> None:
    image = sample_images[0].astype(np.float32)
    ours = augment.warp(
        tf.constant(image[None]), augment.transforms(tf.constant([unit], tf.float32), STUDY, 32, 32)
    )[0].numpy()
    np.testing.assert_allclose(ours, by_keras(image, np.array(unit, np.float32)), atol=0.05)


def test_drawn_views_are_those_of_keras_side_by_side(images: np.ndarray, tmp_path: Path) -> None:
    samples = np.arange(0, 200, 25)
    ours = view_of(images[samples], 524, 1, samples)
    unit = draws.uniform(
        524, augment.STREAM, tf.constant(1, tf.int64), tf.constant(samples, tf.int64), 7
    ).numpy()
    theirs = np.stack([by_keras(images[n], unit[row]) for row, n in enumerate(samples)])

    figure = matplotlib.figure.Figure(figsize=(12, 3.4), layout="tight")
    for axes, picture in zip(figure.subplots(2, 8).flat, (*ours, *theirs), strict=True):
        axes.imshow(picture.clip(0, 255).round().astype(np.uint8))
        axes.axis("off")
    figure.suptitle("Views of eight images: ours above, Keras' below")
    figure.savefig(tmp_path / "side-by-side.png")

    np.testing.assert_allclose(ours, theirs, atol=0.05)


def test_statistics_match_those_of_image_data_generator(images: np.ndarray) -> None:
    np.random.seed(0)  # noqa: NPY002 - Keras draws from NumPy's global state
    keras = generator()
    theirs = np.stack(
        [keras.random_transform(i.astype(np.float32)) for i in images for _ in "12345"]
    )
    ours = np.concatenate([view_of(images, 0, view, np.arange(len(images))) for view in range(5)])
    assert ours.mean() == pytest.approx(theirs.mean(), abs=1.0)
    assert ours.std() == pytest.approx(theirs.std(), abs=1.0)
    # The mean picture and the mean horizontal and vertical differences, which blur lowers.
    assert np.abs(ours.mean(0) - theirs.mean(0)).mean() < 3.0
    for axis in (1, 2):
        assert np.abs(np.diff(ours, axis=axis)).mean() == pytest.approx(
            np.abs(np.diff(theirs, axis=axis)).mean(), rel=0.05
        )


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_a_picture_depends_on_seed_view_and_sample_only(
    images: np.ndarray, name: AugmentationName
) -> None:
    how, samples = augment.AUGMENTATIONS[name], np.arange(100, 300)
    whole = view_of(images, 7, 3, samples, how)
    shuffled = np.random.default_rng(1).permutation(200)
    np.testing.assert_array_equal(
        view_of(images[shuffled], 7, 3, samples[shuffled], how), whole[shuffled]
    )
    np.testing.assert_array_equal(view_of(images[5:6], 7, 3, samples[5:6], how), whole[5:6])
    assert whole.min() >= 0
    assert whole.max() <= 255
    for other in (
        view_of(images, 8, 3, samples, how),
        view_of(images, 7, 4, samples, how),
        view_of(images, 7, 3, samples + 1, how),
    ):
        assert np.mean(np.any(other != whole, axis=(1, 2, 3))) > 0.95


def test_eager_graph_and_map_give_the_same_picture(images: np.ndarray) -> None:
    samples = np.arange(len(images))
    dataset = tf.data.Dataset.from_tensors((images, samples)).map(
        lambda i, s: augment.augment(i, STUDY, seed=1, view=tf.constant(2, tf.int64), samples=s)
    )
    np.testing.assert_array_equal(next(iter(dataset)).numpy(), view_of(images, 1, 2, samples))


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_no_image_is_no_picture(name: AugmentationName) -> None:
    nothing = view_of(
        np.zeros((0, 32, 32, 3), np.uint8),
        1,
        2,
        np.zeros((0,), np.int64),
        augment.AUGMENTATIONS[name],
    )
    assert nothing.shape == (0, 32, 32, 3)


def test_flip_and_shift_moves_whole_pixels_by_an_eighth_at_most(images: np.ndarray) -> None:
    shown = view_of(images, 7, 3, np.arange(200), augment.AUGMENTATIONS["flip-and-shift"])
    found = set()
    for image, view in zip(images, shown, strict=True):
        wide = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="edge")
        crops = {
            (flip, y, x): wide[y : y + 32, x : x + 32][:, :: -1 if flip else 1]
            for flip in (False, True)
            for y in range(9)
            for x in range(9)
        }
        (place, *_) = [at for at, crop in crops.items() if np.array_equal(crop, view)]
        found.add(place)
    assert {flip for flip, _, _ in found} == {False, True}
    assert {y for _, y, _ in found} == {x for _, _, x in found} == set(range(9))


def test_colours_change_in_contrast_brightness_and_saturation() -> None:
    image = np.array([[[[100, 120, 140], [60, 80, 100]]]], np.float32)

    def changed(*change: float) -> np.ndarray:
        return augment.coloured(tf.constant(image), tf.constant([change], tf.float32)).numpy()

    np.testing.assert_allclose(changed(0, 0, 0), image, rtol=1e-6)
    np.testing.assert_allclose(changed(0.5, 0, 0), 100 + (image - 100) * 1.5, rtol=1e-6)
    np.testing.assert_allclose(changed(0, 0.2, 0), image + 25.5, rtol=1e-6)
    np.testing.assert_allclose(changed(0, 0, -1)[0, 0], [[120] * 3, [80] * 3], rtol=1e-6)
    assert changed(0, 2, 0).max() == 255
    assert changed(0, -2, 0).min() == 0


def test_a_square_of_the_mean_colour_is_cut_out_and_may_reach_over_the_border() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 12, 3)).astype(np.float32)
    unit = tf.constant([[0.5, 0.5], [0.0, 0.99]])
    shown = augment.cut_out(tf.constant(images), unit, 4).numpy()
    for image, view, (rows, columns) in zip(
        images, shown, ((slice(6, 10), slice(4, 8)), (slice(13, 17), slice(0, 2))), strict=True
    ):
        expected = image.copy()
        expected[rows, columns] = image.mean(axis=(0, 1))
        np.testing.assert_allclose(view, expected, rtol=1e-5)
