"""Pictures that people have → images of a model."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tlcluster.dataset.arrange import MAX_FILES, MAX_IMAGE_BYTES
from tlcluster.dataset.decode import decode, quiet_pillow
from tlcluster.dataset.names import SUFFIXES, is_litter
from tlcluster.errors import UserError, reason
from tlcluster.export.opened import Images
from tlcluster.paths import expanded
from tlcluster.plain_files import read_plain

_WAY_OUT = f"give {', '.join(SUFFIXES)} files, or folders that hold some"


def found(paths: Iterable[str | Path]) -> list[Path]:
    """The pictures at these paths: files as they are given, and those inside folders, in order.

    In a folder, and in those inside it, hidden files and files with other endings are left out.

    Raises:
        UserError: a path does not exist, cannot be read, or is a folder without pictures.
    """
    every: list[Path] = []
    for path in map(expanded, paths):
        try:
            inside = list(_inside(path)) if path.is_dir() else [path]
            exists = path.exists()
        except OSError as error:
            raise UserError(f"{path}: {reason(error)}; {_WAY_OUT}") from None
        if not exists:
            raise UserError(f"{path}: no such file or folder; {_WAY_OUT}")
        if not inside:
            raise UserError(f"{path}: has no pictures; {_WAY_OUT}")
        every += inside
        if len(every) > MAX_FILES:
            raise UserError(f"{path}: there are more than {MAX_FILES:,} pictures; give fewer")
    return every


def _inside(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not is_litter(name))
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES) and not is_litter(name):
                yield Path(place, name)


def read_images(paths: Sequence[Path], size: tuple[int, int]) -> Iterator[Images]:
    """The pictures as `ingest --image-size` would store them, uint8 (height, width, 3) each.

    Args:
        paths: of PNG or JPEG files.
        size: width and height.

    Raises:
        UserError: a file cannot be read, or is no picture.
    """
    for path in paths:
        try:
            data = read_plain(path, MAX_IMAGE_BYTES)
            with quiet_pillow():
                yield decode(data, size, resize=True)
        except OSError as error:
            raise UserError(f"{path}: {reason(error)}; {_WAY_OUT}") from None
        except ValueError as error:
            raise UserError(f"{path}: {error}; {_WAY_OUT}") from None
