"""Private temporary folders that are gone when their process is, even after kill -9."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_NEW = ".new"
_DAY_SECONDS = 86_400.0


@contextlib.contextmanager
def scratch_folder(purpose: str, base: Path) -> Iterator[Path]:
    """A new folder `<purpose>-<random>` in `base` for this account only, removed at the end.

    A process that is killed cannot tidy up; the next one that wants a folder
    for the same purpose in the same place does it. The owner holds a lock on
    its folder, and the kernel releases it with the process.
    """
    sweep(purpose, base)
    # The lock comes before the name that a sweep looks for: no sweep sees the folder without it.
    new = Path(tempfile.mkdtemp(prefix=f"{purpose}-", suffix=_NEW, dir=base))
    handle = os.open(new, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        folder = new.rename(new.with_suffix(""))
        yield folder
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(new.with_suffix(""), ignore_errors=True)
        os.close(handle)


def sweep(purpose: str, base: Path) -> None:
    """Remove this account's folders for a purpose whose owners are dead."""
    for folder in base.glob(f"{purpose}-*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if status.st_uid != os.getuid():
                continue
            if folder.suffix == _NEW and time.time() - status.st_mtime < _DAY_SECONDS:
                continue
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(handle)
