"""A `.keras` file. It opens in `tf_keras` alone, and in Keras 3."""

from pathlib import Path

import tf_keras as keras

from tlcluster.export.facts import Facts, attach, attached
from tlcluster.export.opened import Content, Run


def write(model: keras.Model, path: Path, facts: Facts) -> None:
    """Write a plain model."""
    model.save(path)
    attach(path, facts)


def open_file(path: Path) -> tuple[Content, Run]:
    """What the file says of itself, and its model. Code inside a file is not run."""
    model = keras.models.load_model(path, compile=False, safe_mode=True)
    return attached(path), model.predict_on_batch
