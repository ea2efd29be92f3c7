"""Augmentation inside the graph: (seed, view, sample) always gives the same image.

`study` is the distribution of Keras' ImageDataGenerator with the study's
arguments: rotation_range=20, width_shift_range=height_shift_range=0.2,
shear_range=0.2 (degrees), zoom_range=0.2, horizontal_flip=True,
fill_mode="nearest", bilinear.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import tensorflow as tf

from tlcluster.experiments import AugmentationName
from tlcluster.training import draws

STREAM = 1
"""Separates these draws from those of Dropout."""

BRIGHTEST = 255.0


class Augmentation(NamedTuple):
    """The ranges that the parameters of a view are drawn from, each uniformly.

    Every image is also flipped horizontally in half of its views.
    """

    shift: float
    """Largest shift along each axis, as a share of the image."""
    whole_pixels: bool = False
    """Whether shifts are rounded to pixels, so that nothing is blurred."""
    rotation_degrees: float = 0.0
    """Largest rotation in each direction."""
    shear_degrees: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    """Of each axis."""
    colour: float = 0.0
    """Largest change of contrast and of saturation, as a share; that of brightness is half as
    large, as a share of the whole range."""
    cutout: float = 0.0
    """Side of a square that gets the image's mean colour, as a share of the shorter side."""


AUGMENTATIONS: Mapping[AugmentationName, Augmentation] = MappingProxyType(
    {
        "study": Augmentation(shift=0.2, rotation_degrees=20.0, shear_degrees=0.2, zoom=(0.8, 1.2)),
        # 4 pixels of 32, as is usual for CIFAR.
        "flip-and-shift": Augmentation(shift=0.125, whole_pixels=True),
        "strong": Augmentation(
            shift=0.125, rotation_degrees=15.0, zoom=(0.8, 1.2), colour=0.4, cutout=0.375
        ),
    }
)


def augment(
    images: tf.Tensor, how: Augmentation, *, seed: int, view: tf.Tensor, samples: tf.Tensor
) -> tf.Tensor:
    """One view of each image.

    Args:
        images: uint8 or float32 (n, height, width, 3), RGB in 0…255.
        how: one of `AUGMENTATIONS`.
        seed: the run's seed.
        view: int64 scalar.
        samples: int64 (n,), numbers of the samples in their split.

    Returns:
        float32 (n, height, width, 3), in 0…255.
    """
    height, width = images.shape[1:3]
    # The first draws are the same however many there are.
    unit = draws.uniform(seed, STREAM, view, samples, 12 if how.colour or how.cutout else 7)
    shown = warp(tf.cast(images, tf.float32), transforms(unit, how, height, width))
    if how.colour:
        shown = coloured(shown, how.colour * (2.0 * unit[:, 7:10] - 1.0))
    if how.cutout:
        shown = cut_out(shown, unit[:, 10:12], round(how.cutout * min(height, width)))
    return shown


def transforms(unit: tf.Tensor, how: Augmentation, height: int, width: int) -> tf.Tensor:
    """Seven uniform draws → one projective transform, for each image.

    Keras composes rotation · shift · shear · zoom in (x, y) about the center of
    the image, maps output to input coordinates with it, then flips.

    Args:
        unit: float32 (n, 7 or more) in [0, 1).
        how: the ranges.
        height, width: of the images.

    Returns:
        float32 (n, 8), for `warp`.
    """
    spread = 2.0 * unit - 1.0
    theta = spread[:, 0] * math.radians(how.rotation_degrees)
    # ImageDataGenerator scales its first shift by the height and its second by the width.
    shift_x = spread[:, 1] * how.shift * height
    shift_y = spread[:, 2] * how.shift * width
    if how.whole_pixels:
        shift_x, shift_y = tf.round(shift_x), tf.round(shift_y)
    shear = spread[:, 3] * math.radians(how.shear_degrees)
    zoom_x = how.zoom[0] + unit[:, 4] * (how.zoom[1] - how.zoom[0])
    zoom_y = how.zoom[0] + unit[:, 5] * (how.zoom[1] - how.zoom[0])
    flip = unit[:, 6] < 0.5

    cos, sin = tf.cos(theta), tf.sin(theta)
    # rotation · shear · zoom
    a, b = cos * zoom_x, -(cos * tf.sin(shear) + sin * tf.cos(shear)) * zoom_y
    c, d = sin * zoom_x, (cos * tf.cos(shear) - sin * tf.sin(shear)) * zoom_y
    middle_x, middle_y = width / 2 - 0.5, height / 2 - 0.5
    x = cos * shift_x - sin * shift_y + middle_x - a * middle_x - b * middle_y
    y = sin * shift_x + cos * shift_y + middle_y - c * middle_x - d * middle_y

    # A flipped result is read at width − 1 − x.
    x, y = tf.where(flip, x + a * (width - 1), x), tf.where(flip, y + c * (width - 1), y)
    a, c = tf.where(flip, -a, a), tf.where(flip, -c, c)
    zero = tf.zeros_like(a)
    return tf.stack([a, b, x, c, d, y, zero, zero], axis=1)


def warp(images: tf.Tensor, transform: tf.Tensor) -> tf.Tensor:
    """Bilinear resampling; outside the image, the nearest edge pixel is repeated.

    Args:
        images: float32 (n, height, width, channels).
        transform: float32 (n, 8); output (x, y) is read at
            (t0·x + t1·y + t2, t3·x + t4·y + t5).
    """
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transform,
        # Static, so that the sizes of the following maps are static too.
        output_shape=images.shape[1:3],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )


def coloured(images: tf.Tensor, change: tf.Tensor) -> tf.Tensor:
    """Images with another contrast, brightness and saturation.

    Args:
        images: float32 (n, height, width, 3) in 0…255.
        change: float32 (n, 3): of contrast and saturation as a share, that of brightness as twice
            a share of the range. 0 changes nothing.

    Returns:
        float32 (n, height, width, 3), cut to 0…255.
    """
    contrast, brightness, saturation = tf.unstack(change[:, :, None, None, None], axis=1)
    mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
    images = mean + (images - mean) * (1.0 + contrast) + brightness * (BRIGHTEST / 2.0)
    grey = tf.reduce_mean(images, axis=3, keepdims=True)
    return tf.clip_by_value(grey + (images - grey) * (1.0 + saturation), 0.0, BRIGHTEST)


def cut_out(images: tf.Tensor, unit: tf.Tensor, side: int) -> tf.Tensor:
    """A square of each image gets the image's mean colour.

    DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout"
    (2017). The centre can be any pixel, so that part of the square may be outside.

    Args:
        images: float32 (n, height, width, 3).
        unit: float32 (n, 2) in [0, 1): the centre's place in x and y.
        side: of the square, in pixels.
    """
    height, width = images.shape[1:3]
    left = tf.floor(unit[:, 0] * width) - side // 2
    top = tf.floor(unit[:, 1] * height) - side // 2
    x, y = tf.range(width, dtype=tf.float32), tf.range(height, dtype=tf.float32)
    across = (x >= left[:, None]) & (x < left[:, None] + side)
    down = (y >= top[:, None]) & (y < top[:, None] + side)
    inside = down[:, :, None, None] & across[:, None, :, None]
    return tf.where(inside, tf.reduce_mean(images, axis=(1, 2), keepdims=True), images)
