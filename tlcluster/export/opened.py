"""A model file of any format → what it says of itself, and a function from images to answers.

A reader is imported when a file needs it: an ONNX file needs no TensorFlow, a Keras file no ONNX
Runtime.
"""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tlcluster import paths
from tlcluster.errors import UserError, reason
from tlcluster.export.facts import Facts, read_facts
from tlcluster.paths import expanded

Images = npt.NDArray[np.uint8]
"""(n, height, width, 3)."""
Probabilities = npt.NDArray[np.float32]
"""(n, classes)."""
Run = Callable[[Images], Probabilities]
Content = bytes | str | None
"""What a file says of itself, as it lies in the file."""


class Opened(NamedTuple):
    """A model that was exported, ready to use."""

    facts: Facts
    run: Run


class Reader(NamedTuple):
    """What opens files of a format."""

    module: str
    needs: Mapping[str, str]
    """Library that it imports → what installs it."""


READERS: Mapping[str, Reader] = MappingProxyType(
    {
        ".keras": Reader("tlcluster.export.keras_file", {"tf_keras": "tlcluster"}),
        "": Reader("tlcluster.export.saved_model", {"tensorflow": "tlcluster"}),
        ".onnx": Reader("tlcluster.export.read_onnx", {"onnxruntime": "onnxruntime"}),
        ".tflite": Reader("tlcluster.export.read_litert", {"tensorflow": "ai-edge-litert"}),
    }
)
"""Suffix of a file → what opens it; a SavedModel is a folder."""


def open_model(model: str | Path) -> Opened:
    """Open a model that export wrote.

    Args:
        model: a `.keras`, `.onnx` or `.tflite` file, or the folder of a SavedModel.

    Raises:
        UserError: there is none, it is damaged, or what runs it is not installed.
    """
    path = expanded(model)
    suffix = _suffix(path)
    reader = READERS[suffix]
    try:
        module = importlib.import_module(reader.module)
    except ModuleNotFoundError as error:
        raise _not_installed(path, reader, error) from None
    try:
        content, run = module.open_file(path)
    except OSError as error:
        raise UserError(f"{path}: {reason(error)}; give a file that export wrote") from None
    # Their readers raise exceptions of a dozen kinds.
    except Exception as error:  # noqa: BLE001
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: cannot be opened ({said}); export the experiment again") from None
    return Opened(read_facts(path, content), run)


def _suffix(path: Path) -> str:
    try:
        if path.is_dir():
            if (path / "saved_model.pb").is_file():
                return ""
            held = sorted(inside.name for inside in path.iterdir() if inside.suffix in READERS)
            raise UserError(
                f"{path}: is a folder and no SavedModel; give one of its files"
                + (f": {', '.join(held[:8])}" if held else ", as export wrote them")
            )
        if not path.exists():
            raise UserError(f"{path}: no such file; give a model that export wrote")
    except OSError as error:
        raise UserError(f"{path}: {reason(error)}; give a model that export wrote") from None
    if not path.suffix or path.suffix not in READERS:
        known = ", ".join(filter(None, READERS))
        raise UserError(f"{path}: no such kind of model; give a {known} file or a SavedModel")
    return path.suffix


def _not_installed(path: Path, reader: Reader, error: ModuleNotFoundError) -> Exception:
    """The error for a library that is not there; any other is a mistake of ours."""
    library = (error.name or "").partition(".")[0]
    if library not in reader.needs:
        return error
    return UserError(
        f"{path}: needs {library}, which is not installed here; run: "
        f"{installing(reader.needs[library])}"
    )


def installing(what: str) -> str:
    """The command that installs libraries which are no dependency of this package.

    Args:
        what: as pip takes it.
    """
    return "make env EXPORT=1" if paths.IN_CHECKOUT else f"pip install '{what}'"
