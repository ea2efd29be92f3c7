"""Folders whose content is ours to delete: each holds a mark with the folder's own name in it.

A name alone proves nothing, since a user may have a folder of the same name. The mark is a file
that no other program writes, and a copy of the folder under another name is not marked. The mark is
also a cache directory tag (https://bford.info/cachedir/), so that backups leave the folder out.
"""

import errno
import os
import secrets
import stat
from pathlib import Path

MARK = "CACHEDIR.TAG"

_SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55"


def _content(name: str) -> bytes:
    return (
        f"{_SIGNATURE}\n"
        f"# tlcluster made the folder {name} and deletes what is in it; keep nothing here.\n"
    ).encode()


def mark(folder: Path, name: str) -> None:
    """Mark a folder that this program has just made; `name` is the name that it will get."""
    (folder / MARK).write_bytes(_content(name))


def is_marked(folder: Path) -> bool:
    """Whether the folder holds the mark for its present name."""
    path, content = folder / MARK, _content(folder.name)
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size != len(content):
            return False
        return path.read_bytes() == content
    except OSError:
        return False


def make_marked(folder: Path) -> bool:
    """Make a marked folder unless it exists. Several processes may try at once.

    Returns:
        Whether the folder is marked now. False if another program or a person made it.

    Raises:
        OSError: it cannot be made.
    """
    if is_marked(folder):
        return True
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.with_name(f"{folder.name}-{secrets.token_hex(8)}")
    new.mkdir()
    try:
        # The mark comes first, so that the folder never has its name without the mark.
        mark(new, folder.name)
        os.rename(new, folder)  # noqa: PTH104 - Path.replace says the opposite of what happens
    except OSError as error:
        (new / MARK).unlink(missing_ok=True)
        new.rmdir()
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    return is_marked(folder)
