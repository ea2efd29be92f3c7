"""What an exported model says of itself. It lies inside the file, in the way of each format."""

import json
import zipfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tlcluster.dataset.shards import MAX_CLASSES, Side
from tlcluster.errors import UserError

IMAGES = "images"
"""Name of a model's input."""
PROBABILITIES = "probabilities"
"""Name of its output."""

MEMBER = "tlcluster.json"
"""Name of the facts among the files of a model: inside a zip archive, or a SavedModel's assets."""

KEY = "tlcluster"
"""Name of the facts among an ONNX model's metadata."""

MOST_BYTES = 2**20
"""Of the facts: 1,000 classes with names of 255 bytes each have a quarter of it."""

RESIZING = "Pillow, bicubic and antialiased; the aspect ratio is not kept"
"""How `tlcluster.dataset.decode` makes pictures as large as those of the data set."""


class Facts(BaseModel):
    """The model takes uint8 RGB images (n, *image_shape) and gives float32 probabilities."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1] = 1
    """Of these facts."""
    classes: tuple[str, ...] = Field(min_length=2, max_length=MAX_CLASSES)
    """Their names, in the order of the probabilities."""
    image_shape: tuple[Side, Side, Literal[3]]
    """Height, width, channels."""
    resizing: str = RESIZING
    """How pictures of other sizes become images of the model."""
    experiment: str
    run: str
    seed: int
    dataset: str
    index_sha256: str
    weights_sha256: str
    """Of the file that training wrote."""
    tlcluster: str
    """Version that made the file."""


def attach(path: Path, facts: Facts) -> None:
    """Put the facts into a file, as a member of a zip archive.

    A `.keras` file is such an archive. A `.tflite` file may have one at its end, which is where
    TensorFlow Lite's metadata tools put files that belong to a model; interpreters ignore it.
    """
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(MEMBER, (1980, 1, 1, 0, 0, 0)), facts.model_dump_json())


def attached(path: Path) -> bytes | None:
    """The facts that `attach` put into a file, None if there are none."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(MEMBER) as member:
            return member.read(MOST_BYTES)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError):
        return None


def read_facts(path: Path, content: bytes | str | None) -> Facts:
    """The facts of a file.

    Raises:
        UserError: it has none, or they cannot be used.
    """
    if content is None:
        raise UserError(
            f"{path}: does not say its classes and image size, so it is no file that export wrote; "
            "give one of those"
        )
    try:
        return Facts.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path}: what it says of itself cannot be used ({where}: {first['msg']}); export the "
            "experiment again"
        ) from None


def for_onnx(facts: Facts) -> dict[str, str]:
    """The metadata of an ONNX model: the facts, and what other programs look for."""
    return {KEY: facts.model_dump_json(), "classes": json.dumps(facts.classes, ensure_ascii=False)}
