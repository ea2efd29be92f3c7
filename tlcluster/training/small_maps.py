"""3×3 convolutions on small maps, without multiplying the zeros of the border.

On 32×32 images VGG16's last blocks see maps of 4×4 and 2×2 pixels. A 3×3 kernel at every pixel of a
4×4 map reads 144 pixels, of which 44 are outside the map; on a 2×2 map 20 of 36 are. TensorFlow's
CPU kernels multiply all of them, and are slow on such short rows. This module computes one matrix
product for each of the nine positions in the kernel, with the pixels that it covers, which runs at
the full rate of the machine. The products are those of the plain convolution; only the order of
their sum differs.

Winograd's F(2×2, 3×3) is 10 % faster still, but leaves a rounding error if a gradient is exactly
zero, and Adam makes a full step from that.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras as keras

LARGEST_SIDE = 4
"""Largest height and width of a small map. On 8×8 maps TensorFlow's own kernels are as fast."""

SIDE = 3
"""Height and width of a kernel."""


def replaces(layer: keras.layers.Layer) -> bool:
    """Whether `convolve` computes the same as this layer's own operation.

    It stands in for a 3×3 convolution with stride 1, dilation 1, padding `SAME` and one group, on
    channels-last maps. Classes that derive from Conv2D may do something else.
    """
    return type(layer) is keras.layers.Conv2D and (
        tuple(layer.kernel_size),
        tuple(layer.strides),
        tuple(layer.dilation_rate),
        layer.padding,
        layer.groups,
        layer.data_format,
    ) == ((SIDE, SIDE), (1, 1), (1, 1), "same", 1, "channels_last")


def convolve(maps: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolution with stride 1 and padding `SAME`, in the faster of two ways.

    Args:
        maps: (n, height, width, inputs), of a dtype that `tf.nn.conv2d` takes.
        kernel: (3, 3, inputs, outputs), of the same dtype.

    Returns:
        (n, height, width, outputs), of the same dtype.
    """
    if any(side is None or side > LARGEST_SIDE for side in maps.shape[1:3]):
        return tf.nn.conv2d(maps, kernel, strides=1, padding="SAME")
    return _by_places(maps, kernel)


class _Place(NamedTuple):
    """One position in a kernel: the input pixels that it reads and the output pixels it adds to.

    Both are rectangles of `rows` × `columns` pixels of a map.
    """

    number: int
    """Position in the kernel, row by row."""
    rows: int
    columns: int
    read: tuple[int, int]
    """Row and column of the first input pixel."""
    written: tuple[int, int]
    """Row and column of the first output pixel."""

    def cut(self, pixels: tf.Tensor, corner: tuple[int, int]) -> tf.Tensor:
        """The rectangle of a map (height, width, n, channels) as a matrix (pixels, channels)."""
        (top, left), channels = corner, pixels.shape[3]
        return tf.reshape(pixels[top : top + self.rows, left : left + self.columns], (-1, channels))

    def laid(
        self, products: tf.Tensor, corner: tuple[int, int], size: tuple[int, int]
    ) -> tf.Tensor:
        """The inverse of `cut`, with zeros around the rectangle."""
        (top, left), (height, width) = corner, size
        borders = [[top, height - self.rows - top], [left, width - self.columns - left]]
        shape = (self.rows, self.columns, -1, products.shape[1])
        return tf.pad(tf.reshape(products, shape), [*borders, [0, 0], [0, 0]])


def _places(height: int, width: int) -> list[_Place]:
    """The positions that read any pixel of a map of this size."""
    places = []
    for number in range(SIDE**2):
        down, across = (step - SIDE // 2 for step in divmod(number, SIDE))
        rows, columns = height - abs(down), width - abs(across)
        if rows > 0 and columns > 0:
            read, written = (max(down, 0), max(across, 0)), (max(-down, 0), max(-across, 0))
            places.append(_Place(number, rows, columns, read, written))
    return places


@tf.custom_gradient
def _by_places(maps: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    _, height, width, inputs = maps.shape
    size, places = (height, width), _places(height, width)
    # Pixels first, so that a rectangle of them is one matrix for all images.
    pixels = tf.transpose(maps, (1, 2, 0, 3))
    weights = tf.unstack(tf.reshape(kernel, (SIDE**2, inputs, kernel.shape[3])))
    parts = [
        place.laid(place.cut(pixels, place.read) @ weights[place.number], place.written, size)
        for place in places
    ]

    # TensorFlow's own gradient of a slice fills whole maps with zeros on one core, which takes 10 %
    # of a training step.
    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        above = tf.transpose(upstream, (1, 2, 0, 3))
        to_pixels, to_weights = [], [tf.zeros_like(part) for part in weights]
        for place in places:
            cut = place.cut(above, place.written)
            back = tf.matmul(cut, weights[place.number], transpose_b=True)
            to_pixels.append(place.laid(back, place.read, size))
            to_weights[place.number] = tf.matmul(
                place.cut(pixels, place.read), cut, transpose_a=True
            )
        return (
            tf.transpose(tf.add_n(to_pixels), (2, 0, 1, 3)),
            tf.reshape(tf.stack(to_weights), tf.shape(kernel)),
        )

    return tf.transpose(tf.add_n(parts), (2, 0, 1, 3)), gradient
