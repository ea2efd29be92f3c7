"""Augmentation inside the graph: (seed, view, sample) always gives the same image.

The distribution is that of Keras' ImageDataGenerator with the study's arguments:
rotation_range=20, width_shift_range=height_shift_range=0.2,
shear_range=0.2 (degrees), zoom_range=0.2, horizontal_flip=True,
fill_mode="nearest", bilinear.
"""

import math

import tensorflow as tf

from tlcluster.training import draws

ROTATION_DEGREES = 20.0
SHIFT_FRACTION = 0.2
SHEAR_DEGREES = 0.2
ZOOM = (0.8, 1.2)

STREAM = 1
"""Separates these draws from those of Dropout."""


def augment(images: tf.Tensor, *, seed: int, view: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
    """One view of each image.

    Args:
        images: uint8 or float32 (n, height, width, 3).
        seed: the run's seed.
        view: int64 scalar.
        samples: int64 (n,), numbers of the samples in their split.

    Returns:
        float32 (n, height, width, 3), in the range of the input.
    """
    height, width = images.shape[1:3]
    unit = draws.uniform(seed, STREAM, view, samples, 7)
    return warp(tf.cast(images, tf.float32), transforms(unit, height, width))


def transforms(unit: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Seven uniform draws → one projective transform, for each image.

    Keras composes rotation · shift · shear · zoom in (x, y) about the center of
    the image, maps output to input coordinates with it, then flips.

    Args:
        unit: float32 (n, 7) in [0, 1).

    Returns:
        float32 (n, 8), for `warp`.
    """
    spread = 2.0 * unit - 1.0
    theta = spread[:, 0] * math.radians(ROTATION_DEGREES)
    # ImageDataGenerator scales its first shift by the height and its second by the width.
    shift_x = spread[:, 1] * SHIFT_FRACTION * height
    shift_y = spread[:, 2] * SHIFT_FRACTION * width
    shear = spread[:, 3] * math.radians(SHEAR_DEGREES)
    zoom_x = ZOOM[0] + unit[:, 4] * (ZOOM[1] - ZOOM[0])
    zoom_y = ZOOM[0] + unit[:, 5] * (ZOOM[1] - ZOOM[0])
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
