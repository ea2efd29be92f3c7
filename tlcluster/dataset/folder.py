"""The images of a folder, which are read in place."""

import os
from collections.abc import Iterator
from pathlib import Path

from tlcluster.dataset.arrange import Found, Source, arrange, limited
from tlcluster.dataset.names import shown, split_of


def open_folder(source: str, folder: Path, valid_fraction: float | None) -> Source:
    """Find the images of a folder that holds a data set, or one folder with a data set.

    Raises:
        UserError: see `arrange`.
        OSError: a folder cannot be read.
    """
    inside = _names(folder)
    if any(split_of(name) for name in inside):
        tops = [""]
    else:
        tops = ["", *(f"{name}/" for name in inside if (folder / name).is_dir())]
    found = list(limited(source, (item for top in tops for item in _walk(folder, top))))
    return arrange(source, folder, found, valid_fraction)


def _walk(folder: Path, top: str) -> Iterator[Found]:
    """The folder `top` itself, and the files in its splits."""
    yield Found(top)
    for split in filter(split_of, _names(folder / top)):
        at = f"{top}{split}"
        if not (folder / at).is_dir():
            # A plain file beside the splits may have any name; a dead link was meant as a split.
            if problem := _dead_link(folder / at):
                yield Found(f"{at}/", problem=problem)
            continue
        for class_name in _names(folder / at):
            inside = folder / at / class_name
            if not inside.is_dir():
                yield Found(f"{at}/{class_name}", problem=_dead_link(inside))
                continue
            with os.scandir(inside) as entries:
                for entry in entries:
                    yield _found(f"{at}/{class_name}/{entry.name}", entry)


def _found(path: str, entry: os.DirEntry[str]) -> Found:
    if entry.is_file():
        return Found(path)
    if entry.is_dir():
        return Found(f"{path}/")
    problem = _dead_link(Path(entry.path))
    return Found(path, problem=problem or "is a pipe, socket or device; remove it")


def _dead_link(path: Path) -> str:
    """What to say about a symbolic link without a target; nothing if `path` is something else."""
    if not path.is_symlink() or path.exists():
        return ""
    return (
        f"is a link to {shown(str(path.readlink()))}, which does not exist; fetch the files that "
        "the links stand for, or name the folder that holds them"
    )


def _names(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208
