"""The formats of an export: the file of each, and what writes it."""

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tlcluster.errors import UserError
from tlcluster.export.facts import Facts
from tlcluster.export.opened import Images, installing


class Format(NamedTuple):
    """One kind of model file."""

    file: str
    """Its name in the folder of an export."""
    title: str
    module: str
    """What writes it."""
    extra: str = ""
    """The extra of this package that installs what the module imports besides TensorFlow."""


INT8 = "onnx-int8"

FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "keras": Format("model.keras", "Keras", "tlcluster.export.keras_file"),
        "saved-model": Format("saved_model", "SavedModel", "tlcluster.export.saved_model"),
        "onnx": Format("model.onnx", "ONNX, float32", "tlcluster.export.write_onnx", "onnx"),
        INT8: Format("model-int8.onnx", "ONNX, 8 bits", "tlcluster.export.write_onnx", "onnx"),
        "litert": Format("model.tflite", "LiteRT, float32", "tlcluster.export.write_litert"),
    }
)
"""Value of `--format` → the format."""


def writers(names: Iterable[str]) -> dict[str, Any]:
    """Format → the module that writes it.

    Raises:
        UserError: what a format needs is not installed.
    """
    return {name: _writer(name) for name in names}


def _writer(name: str) -> Any:
    extra = FORMATS[name].extra
    try:
        return importlib.import_module(FORMATS[name].module)
    except ModuleNotFoundError as error:
        if not extra or (error.name or "").partition(".")[0] == "tlcluster":
            raise
        raise UserError(
            f"--format {name}: needs {error.name}, which is not installed here; run: "
            f"{installing(f'tlcluster[{extra}]')}"
        ) from None


def write(
    name: str, writer: Any, model: Any, folder: Path, facts: Facts, calibration: Images | None
) -> Path:
    """Write a plain model in one format.

    Args:
        name: of the format.
        writer: of `writers`.
        model: see `tlcluster.export.plain_model`.
        folder: where to.
        calibration: training images, for `INT8`.

    Returns:
        The file, or the folder of a SavedModel.
    """
    path = folder / FORMATS[name].file
    if name != INT8:
        writer.write(model, path, facts)
        return path
    float32 = folder / FORMATS["onnx"].file
    made_here = not float32.exists()
    if made_here:
        writer.write(model, float32, facts)
    writer.write_int8(float32, path, facts, calibration)
    if made_here:
        float32.unlink()
    return path


def bytes_of(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
