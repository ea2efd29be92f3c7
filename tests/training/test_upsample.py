"""Larger images: those of `tf.image.resize`, by products that run on every device."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tlcluster.experiments import Upsampling
from tlcluster.training.upsample import Upsample, weights

METHODS: tuple[Upsampling, ...] = ("bicubic", "bilinear")


@pytest.mark.parametrize("method", METHODS)
def test_images_are_those_of_tensorflow(method: Upsampling, sample_images: np.ndarray) -> None:
    images = tf.constant(sample_images[:3, :24], tf.float32)
    ours = Upsample(60, 64, method)(images).numpy()
    assert ours.shape == (3, 60, 64, 3)
    # TensorFlow looks cubic weights up in a table.
    np.testing.assert_allclose(ours, tf.image.resize(images, (60, 64), method), atol=0.25)


def test_the_methods_differ_by_more_than_the_comparison_allows(sample_images: np.ndarray) -> None:
    images = tf.constant(sample_images[:3], tf.float32)
    cubic, linear = (Upsample(64, 64, method)(images).numpy() for method in METHODS)
    assert np.abs(cubic - linear).max() > 5


@given(st.integers(1, 40), st.integers(1, 3), st.sampled_from(METHODS))
def test_a_row_of_one_colour_stays_so_and_the_same_size_changes_nothing(
    pixels: int, times: int, method: Upsampling
) -> None:
    share = weights(pixels, times * pixels, method)
    np.testing.assert_allclose(share.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(share, share[::-1, ::-1], atol=1e-6)
    np.testing.assert_allclose(weights(pixels, pixels, method), np.eye(pixels), atol=1e-6)


def test_no_image_stays_none() -> None:
    assert Upsample(64, 64, "bicubic")(tf.zeros((0, 32, 32, 3))).shape == (0, 64, 64, 3)
