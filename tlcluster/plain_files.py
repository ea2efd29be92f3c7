"""Plain files, opened without waiting for a pipe, and read up to a limit.

Others may be able to write to the folders that this program reads. A pipe in the place of a file
would block for ever, and a device or a huge file would fill the memory.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_plain(path: Path) -> BinaryIO:
    """Open a file for reading, unbuffered.

    Raises:
        OSError: it cannot be opened, or it is a folder, pipe, socket or device.
    """
    # O_NONBLOCK: opening a pipe without a writer would wait for one.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "is a pipe, socket or device", str(path))
    return os.fdopen(descriptor, "rb", buffering=0)


def not_through_links(path: str, flags: int) -> int:
    """For `open(…, opener=…)`: a symbolic link is refused, which another account may have made."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def read_plain(path: Path, most: int) -> bytes:
    """The content of a file.

    Raises:
        OSError: see `open_plain`, or it has more than `most` bytes.
    """
    with open_plain(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"has more than {most:,} bytes", str(path))
        return file.read()
