"""The PNG files that peers make their records from. Imports the standard library only."""

import hashlib
from collections.abc import Iterator
from pathlib import Path


def png_files(folder: Path) -> Iterator[tuple[bytes, int]]:
    """The files of one split with their labels, in an order that mixes the classes.

    Args:
        folder: `<class>/<name>.png`; labels count the classes by name.
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [(path, label) for label, one in enumerate(classes) for path in one.iterdir()]
    # Records in the order of classes would give batches of one class, so files are mixed once.
    files.sort(key=lambda file: hashlib.sha256(file[0].name.encode()).digest())
    for path, label in files:
        yield path.read_bytes(), label
