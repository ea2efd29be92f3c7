"""Images made larger inside the graph, as two matrix products.

TensorFlow's bicubic resize has no kernel for GPUs. A product with fixed weights runs anywhere, and
its time is small beside that of a base.
"""

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from tlcluster.experiments import Upsampling

SHARPNESS = -0.5
"""Parameter a of Keys, "Cubic convolution interpolation for digital image processing" (1981)."""


def weights(pixels: int, larger: int, method: Upsampling) -> npt.NDArray[np.float32]:
    """The share of each pixel of a row in each pixel of the longer row.

    Pixels are squares, and their values stand for their centres. Outside the row there is nothing:
    the shares of the pixels inside add up to 1. So does `tf.image.resize`.

    Returns:
        float32 (larger, pixels).
    """
    centres = (np.arange(larger) + 0.5) * pixels / larger - 0.5
    distance = np.abs(centres[:, None] - np.arange(pixels)[None, :])
    if method == "bilinear":
        share = np.maximum(0.0, 1.0 - distance)
    else:
        a, d = SHARPNESS, distance
        near = ((a + 2) * d - (a + 3)) * d**2 + 1
        far = a * (((d - 5) * d + 8) * d - 4)
        share = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    return (share / share.sum(axis=1, keepdims=True)).astype(np.float32)


@keras.utils.register_keras_serializable("tlcluster")
class Upsample(keras.layers.Layer):
    """Images (n, height, width, channels) → larger ones, float32.

    Bicubic values can lie a little outside the range of the input.
    """

    def __init__(self, height: int, width: int, method: Upsampling, **kwargs: object) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.height, self.width, self.method = height, width, method

    def call(self, images: tf.Tensor) -> tf.Tensor:
        _, height, width, channels = images.shape
        wider = weights(width, self.width, self.method)
        # All channels in one product: three columns alone would be slow.
        of_rows = np.kron(wider, np.eye(channels, dtype=np.float32)).T
        rows = tf.reshape(images, (-1, width * channels)) @ tf.constant(of_rows)
        of_columns = tf.constant(weights(height, self.height, self.method))
        columns = tf.matmul(of_columns, tf.reshape(rows, (-1, height, self.width * channels)))
        return tf.reshape(columns, (-1, self.height, self.width, channels))

    def get_config(self) -> dict[str, object]:
        size = {"height": self.height, "width": self.width, "method": self.method}
        return {**super().get_config(), **size}
