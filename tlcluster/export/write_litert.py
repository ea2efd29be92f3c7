"""A `.tflite` file for LiteRT, which was called TensorFlow Lite."""

from pathlib import Path

import tensorflow as tf
import tf_keras as keras

from tlcluster.export.facts import Facts, attach
from tlcluster.export.plain_model import forward


def write(model: keras.Model, path: Path, facts: Facts) -> None:
    """Write a plain model with float32 weights and LiteRT's own operations alone."""
    function = forward(model).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], model)
    path.write_bytes(converter.convert())
    attach(path, facts)
