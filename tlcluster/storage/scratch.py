"""Private temporary folders that are gone when their process is, even after kill -9."""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from tlcluster.storage.marked import is_marked, mark

_NEW = ".new"


@contextlib.contextmanager
def scratch_folder(purpose: str, base: Path) -> Iterator[Path]:
    """A new folder `tlcluster-<purpose>-<random>` in `base` for this account only.

    It is removed at the end. A process that is killed cannot do that; the next
    one that wants a folder for the same purpose in the same place does. The
    owner holds a lock on its folder, and the kernel releases it with the process.
    """
    sweep(purpose, base)
    name = f"tlcluster-{purpose}-{secrets.token_hex(8)}"
    new = base / (name + _NEW)
    new.mkdir(mode=0o700)
    handle = os.open(new, os.O_RDONLY)
    try:
        # The lock comes before the mark and the name that a sweep looks for: no sweep takes the
        # folder of a process that is alive.
        fcntl.flock(handle, fcntl.LOCK_EX)
        mark(new, name)
        yield new.rename(base / name)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(base / name, ignore_errors=True)
        os.close(handle)


def sweep(purpose: str, base: Path) -> None:
    """Remove this account's scratch folders for a purpose whose owners are dead.

    A folder that only has such a name, and not the mark of `scratch_folder` in it, stays.
    """
    ours = re.compile(rf"tlcluster-{re.escape(purpose)}-[0-9a-f]{{16}}")
    for folder in base.glob(f"tlcluster-{purpose}-*"):
        with contextlib.suppress(OSError):
            if not ours.fullmatch(folder.name) or folder.lstat().st_uid != os.getuid():
                continue
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if is_marked(folder):
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
            finally:
                os.close(handle)
