"""A `.keras` file. It opens in `tf_keras` alone, and in Keras 3."""

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import tf_keras as keras

from tlcluster.export.facts import Facts, attach, attached
from tlcluster.export.opened import Content, Run

CONFIG = "config.json"
"""Member of a `.keras` file that says what its layers are."""


def write(model: keras.Model, path: Path, facts: Facts) -> None:
    """Write a plain model."""
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model.keras"
        model.save(saved)
        with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(path, "w") as written:
            for member in archive.infolist():
                content = archive.read(member)
                if member.filename == CONFIG:
                    content = json.dumps(for_both(json.loads(content))).encode()
                written.writestr(member, content)
    attach(path, facts)


def for_both(config: Any) -> Any:
    """The configuration of a model in words that `tf_keras` and Keras 3 know.

    `tf_keras` names a module of its own for models, and BatchNorm's axis as a list.
    """
    if isinstance(config, list):
        return [for_both(value) for value in config]
    if not isinstance(config, dict):
        return config
    plain = {key: for_both(value) for key, value in config.items()}
    if plain.get("class_name") == "Functional":
        plain |= {"module": "keras", "class_name": "Model", "registered_name": None}
    if plain.get("class_name") == "BatchNormalization":
        (plain["config"]["axis"],) = plain["config"]["axis"]
    return plain


def open_file(path: Path) -> tuple[Content, Run]:
    """What the file says of itself, and its model. Code inside a file is not run."""
    model = keras.models.load_model(path, compile=False, safe_mode=True)
    return attached(path), model.predict_on_batch
