"""A SavedModel: a folder that TensorFlow and TensorFlow Serving load without Keras."""

from pathlib import Path

import tensorflow as tf
import tf_keras as keras

from tlcluster.export.facts import IMAGES, MEMBER, MOST_BYTES, PROBABILITIES, Facts
from tlcluster.export.opened import Content, Images, Probabilities, Run
from tlcluster.export.plain_model import forward
from tlcluster.plain_files import read_plain

ASSETS = "assets.extra"
"""TensorFlow's name for the folder of files that others add."""

SIGNATURE = "serving_default"


def write(model: keras.Model, path: Path, facts: Facts) -> None:
    """Write a plain model with one signature: images → probabilities."""
    module = tf.Module()
    # Of a whole Keras model, training functions would be saved too.
    module.model_variables = model.variables
    function = forward(model).get_concrete_function()
    tf.saved_model.save(module, str(path), signatures={SIGNATURE: function})
    (path / ASSETS).mkdir()
    (path / ASSETS / MEMBER).write_text(facts.model_dump_json())


def open_file(path: Path) -> tuple[Content, Run]:
    """What the folder says of itself, and its model."""
    model = tf.saved_model.load(str(path))

    def run(images: Images) -> Probabilities:
        # Not the signature alone: it does not keep the variables that it reads.
        return model.signatures[SIGNATURE](**{IMAGES: tf.constant(images)})[PROBABILITIES].numpy()

    says = path / ASSETS / MEMBER
    return (read_plain(says, MOST_BYTES) if says.exists() else None), run
