"""Names of files and folders: which of them make up a data set, and how messages show them.

A data set is `split/class/image`. Splits are `train`, `valid` (or `val` or `validation`) and
`test`, in upper or lower case. Classes are the folders inside, with names in any script.
"""

from collections.abc import Mapping
from types import MappingProxyType

from tlcluster.dataset.shards import MAX_NAME_BYTES, is_name

SUFFIXES = (".png", ".jpg", ".jpeg")

SPLIT_FOLDERS: Mapping[str, str] = MappingProxyType(
    {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
)
"""Name of a folder, in lower case → the split in it."""

LAYOUT = (
    "a data set is train, valid and test, each with one folder per class, with .png or .jpg files "
    "inside"
)

_LITTER = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
        "@eadir",
        "@recycle",
        "@recently-snapshot",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "system volume information",
        "lost+found",
    }
)
"""Files and folders, in lower case, that Windows, macOS and storage appliances leave behind."""

_SHOWN = 160
"""Longest value in a message, in characters."""


def shown(value: str) -> str:
    """A name from outside for a message: quoted, escaped, and cut in the middle if it is long."""
    text = repr(value)
    if len(text) <= _SHOWN:
        return text
    return f"{text[: _SHOWN // 2]}…{text[-_SHOWN // 2 :]} ({len(value):,} characters)"


def split_of(folder: str) -> str | None:
    """The split that a folder of this name holds, if any."""
    return SPLIT_FOLDERS.get(folder.lower())


def is_litter(path: str) -> bool:
    """Whether a file is hidden, or was left by an operating system rather than by a person."""
    return any(
        part.startswith((".", "__MACOSX")) or part.lower() in _LITTER for part in path.split("/")
    )


def problem_of(path: str) -> str | None:
    """What is wrong with a file inside a split, if anything; `path` in normal form C."""
    class_name, slash, name = path.partition("/")
    if not slash:
        return f"is a file between the class folders; {LAYOUT}"
    for part in (class_name, name):
        if len(part.encode(errors="replace")) > MAX_NAME_BYTES and "/" not in part:
            return f"has a name of more than {MAX_NAME_BYTES} bytes; rename it"
    if not is_name(class_name):
        return "is in a folder whose name cannot be printed; rename it"
    if "/" in name:
        return f"is or is in a folder inside a class; {LAYOUT}"
    if not name.lower().endswith(SUFFIXES):
        return "is no .png or .jpg; convert it, or move it out of the class folder"
    if not is_name(name):
        return "has a name that cannot be printed; rename it"
    return None
