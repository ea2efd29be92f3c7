"""A lock that ends with its process, however that ends.

filelock is not used: where `flock` is not implemented, it falls back to a file whose existence is
the lock, and a process that is killed then holds it for ever.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP})
"""What `flock` answers on file systems without locks: NFS without a lock daemon, for example."""
_TAKEN = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})


class LockTaken(Exception):
    """Another process or thread holds the lock."""


@contextlib.contextmanager
def process_lock(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold an exclusive lock on a file, which is made if it is not there and stays.

    It excludes threads of this process as well: each call opens the file anew.

    Args:
        path: the file; its folder exists.
        wait: wait for the lock.

    Yields:
        Whether the lock is held. False: the file system has no locks. The
        caller then does without, and several processes may do the same work.

    Raises:
        LockTaken: another process has it, and we do not wait.
        OSError: the file cannot be made or opened.
    """
    handle = _opened(path)
    try:
        yield _locked(handle, wait)
    finally:
        # A child that was forked meanwhile has the same lock: closing it here is not enough.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _opened(path: Path) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        # NFS gives an exclusive lock only to a file that is open for writing.
        return os.open(path, flags | os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        # The file of another account, in a folder that both use.
        with contextlib.suppress(OSError):
            return os.open(path, flags | os.O_RDONLY)
        raise


def _locked(handle: int, wait: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        if not wait and error.errno in _TAKEN:
            raise LockTaken from None
        raise
    return True
