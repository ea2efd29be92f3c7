"""3×3 convolutions on maps of a few pixels, without multiplying the border of zeros.

On 32×32 images VGG16's last blocks see maps of 4×4 and 2×2 pixels. A 3×3 kernel that is laid on
every pixel of a 4×4 map has 144 places, of which 44 lie outside; on a 2×2 map 20 of 36 do.
TensorFlow's kernels for a processor multiply all of them, and lose more of their speed on rows so
short. Here each of the kernel's nine places is one matrix product with the pixels that it meets,
which runs at the machine's full rate. The products are those of the plain convolution; only the
order of their sum differs.

Winograd's F(2×2, 3×3) is a tenth faster still, but where a gradient is exactly zero it leaves a
rounding error, of which Adam makes a full step.
"""

import tensorflow as tf

LARGEST_SIDE = 4
"""Maps up to this are convolved so. On 8×8 maps TensorFlow's own kernels are as fast."""

SIDE = 3
"""Of a kernel."""


def convolve(maps: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolution with stride 1 and a border of zeros (`SAME`), by the way that is faster.

    Args:
        maps: (n, height, width, inputs), of a dtype that `tf.nn.conv2d` takes.
        kernel: (3, 3, inputs, outputs), of the same dtype.

    Returns:
        (n, height, width, outputs), of the same dtype.
    """
    if any(side is None or side > LARGEST_SIDE for side in maps.shape[1:3]):
        return tf.nn.conv2d(maps, kernel, strides=1, padding="SAME")
    return _by_places(maps, kernel)


def _by_places(maps: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    _, height, width, inputs = maps.shape
    images, outputs = tf.shape(maps)[0], kernel.shape[3]
    # Pixels first, so that the pixels that a place meets are one matrix for all images.
    pixels = tf.transpose(maps, (1, 2, 0, 3))
    parts = []
    for place, weights in enumerate(tf.unstack(tf.reshape(kernel, (SIDE**2, inputs, outputs)))):
        down, across = (step - SIDE // 2 for step in divmod(place, SIDE))
        rows, columns = height - abs(down), width - abs(across)
        if rows < 1 or columns < 1:
            continue
        top, left = max(down, 0), max(across, 0)
        met = pixels[top : top + rows, left : left + columns]
        products = tf.reshape(met, (rows * columns * images, inputs)) @ weights
        # Where the results lie: the pixel below one gives to that above, and so on.
        above, before = max(-down, 0), max(-across, 0)
        borders = [[above, height - rows - above], [before, width - columns - before]]
        part = tf.reshape(products, (rows, columns, images, outputs))
        parts.append(tf.pad(part, [*borders, [0, 0], [0, 0]]))
    return tf.transpose(tf.add_n(parts), (2, 0, 1, 3))
