"""Private temporary folders that are removed with their process, even after kill -9."""

import contextlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from tlcluster.storage.locks import LockTaken, process_lock
from tlcluster.storage.marked import MARK, is_marked, mark

_NEW = ".new"


@contextlib.contextmanager
def scratch_folder(purpose: str, base: Path) -> Iterator[Path]:
    """A new folder `tlcluster-<purpose>-<random>` in `base` for this account only.

    It is removed at the end. If the process is killed, the next call for the
    same purpose and place removes it, from any process. The owner holds a lock
    on the mark in its folder, which ends with the process.
    On a file system without locks, folders of killed processes stay.
    """
    sweep(purpose, base)
    name = f"tlcluster-{purpose}-{secrets.token_hex(8)}"
    new = base / (name + _NEW)
    new.mkdir(mode=0o700)
    try:
        mark(new, name)
        # The lock comes before the name that a sweep looks for: no sweep takes the folder of a
        # process that is alive.
        with process_lock(new / MARK, wait=True):
            yield new.rename(base / name)
    finally:
        # After the lock: NFS keeps a file that is open, and so its folder.
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(base / name, ignore_errors=True)


def sweep(purpose: str, base: Path) -> None:
    """Remove this account's scratch folders for a purpose whose owners are dead.

    A folder with such a name but without the mark of `scratch_folder` stays.
    """
    ours = re.compile(rf"tlcluster-{re.escape(purpose)}-[0-9a-f]{{16}}")
    for folder in base.glob(f"tlcluster-{purpose}-*"):
        with contextlib.suppress(OSError, LockTaken):
            if not ours.fullmatch(folder.name) or folder.lstat().st_uid != os.getuid():
                continue
            if not stat.S_ISDIR(folder.lstat().st_mode) or not is_marked(folder):
                continue
            with process_lock(folder / MARK, wait=False) as locked:
                dead = locked
            if dead:
                shutil.rmtree(folder)
