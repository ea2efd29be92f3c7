"""A node's disk cache: verified copies of objects, shared by all worker processes of the node."""

import contextlib
import functools
import hashlib
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

import blake3

from tlcluster.errors import UserError, os_errors_explained
from tlcluster.paths import expanded
from tlcluster.plain_files import open_plain
from tlcluster.storage.locks import LockTaken, process_lock
from tlcluster.storage.marked import make_marked
from tlcluster.storage.protocol import CorruptObject

DEFAULT_BYTES = 20 * 2**30
TRIES = 3
"""Downloads of one object before we conclude that the store itself holds a damaged one."""
GRACE_SECONDS = 60.0
"""A file returned this recently is not evicted, so that its reader has time to open it."""
ABANDONED_SECONDS = 3600.0
"""Without locks, a partial file that has not grown for this long is deleted."""

OBJECTS = "tlcluster-objects"
"""The folder inside the cache folder that holds the copies. A user may keep other files in the
cache folder itself; nothing is deleted there."""

_PART = ".part"
_LOCKS = "locks"
_OURS = re.compile(rf"[0-9a-f]{{64}}((-[0-9a-f]{{16}})?{re.escape(_PART)})?")
_BLOCK = 2**20

_known: dict[str, bytes] = {}
"""sha256 → BLAKE3 of the same content, for files that this process has verified.

Every epoch verifies the same files again. BLAKE3 takes a quarter of the time of sha256 and is as
hard to forge, so a file with a known BLAKE3 has the sha256 that was found with it.
"""


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/tlcluster`, by default `~/.cache/tlcluster`.

    Raises:
        UserError: this account has no home directory.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "tlcluster"
    try:
        return Path.home() / ".cache" / "tlcluster"
    except RuntimeError:
        raise UserError(
            "this account has no home directory to keep a cache in; set HOME or XDG_CACHE_HOME, or "
            "name a folder with --cache"
        ) from None


def verify(path: Path, key: str, *, sha256: str, size: int) -> None:
    """Read the whole file and compare its size in bytes and its sha256 (hexadecimal).

    Raises:
        CorruptObject: they differ.
        FileNotFoundError: there is no such file.
    """
    if sha256 in _known:
        quick = blake3.blake3()
        if _read(path, size, quick) == size and quick.digest() == _known[sha256]:
            return
    digest, quick = hashlib.sha256(), blake3.blake3()
    found = _read(path, size, digest, quick)
    if found != size or digest.hexdigest() != sha256:
        raise CorruptObject(
            key, f"sha256 {sha256} ({size} bytes)", f"sha256 {digest.hexdigest()} ({found} bytes)"
        )
    _known[sha256] = quick.digest()


class _Digest(Protocol):
    def update(self, data: bytes, /) -> object: ...


def _read(path: Path, expected: int, *digests: _Digest) -> int:
    """Feed a file to the digests; returns its size in bytes.

    Reading ends soon after `expected` bytes: a larger file is another one anyway.
    """
    size = 0
    with open_plain(path) as file:
        while size <= expected and (block := file.read(_BLOCK)):
            for digest in digests:
                digest.update(block)
            size += len(block)
        return max(size, os.fstat(file.fileno()).st_size)


class NodeCache:
    """Files named by the sha256 of their content, in one folder on a disk of this node.

    Many processes and threads may use one folder at once: a lock per object
    lets one of them download while the others wait for its file. The locks are
    the kernel's, so a process that dies leaves nothing locked. On a file
    system without locks, several processes may download the same object.

    A file's modification time is the time it was last returned. Above
    `max_bytes`, the least recently used files are deleted. Deleting a file that
    a process has open or mapped is harmless on POSIX: the content stays until
    the last reader closes it. A reader needs time to open the file that it was
    given, so files younger than `GRACE_SECONDS` are kept, even above the limit.
    Files that are not named by a hash belong to the user and stay.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int = DEFAULT_BYTES) -> None:
        self._given = expanded(folder) if folder else None
        self.max_bytes = max_bytes

    @functools.cached_property
    def folder(self) -> Path:
        """The cache folder. It need not exist.

        Raises:
            UserError: none is given, and this account has no home directory.
        """
        return self._given or default_folder()

    @property
    def objects(self) -> Path:
        """The folder with the copies."""
        return self.folder / OBJECTS

    def check(self) -> None:
        """Check that the folder can be written, and make it if it is not there.

        Raises:
            UserError, StoreUnavailable: see `get`.
        """
        with self._explained():
            self._make()
            tempfile.TemporaryFile(dir=self.objects / _LOCKS).close()

    def get(self, key: str, *, sha256: str, size: int, download: Callable[[Path], None]) -> Path:
        """The verified file with this sha256; if it is not here yet, `download(path)` writes it.

        The file is verified on every call, so a bit that flipped on the disk
        only costs a download. Open the file within `GRACE_SECONDS`.

        Raises:
            CorruptObject: the downloaded content was wrong `TRIES` times.
            UserError: the folder cannot be written or its disk is full.
            StoreUnavailable: its file system does not answer now.
        """
        path = self.objects / sha256
        with self._explained():
            if self._hit(path, key, sha256=sha256, size=size):
                return path
            self._make()
            with self._lock(sha256, wait=True) as locked:
                # Another process may have finished the download while we waited for the lock.
                if not self._hit(path, key, sha256=sha256, size=size):
                    self._make_room(size)
                    # The holder of the object's lock is its only writer. Without locks, each
                    # process downloads into a file of its own, and the last one's stays.
                    own = "" if locked else f"-{secrets.token_hex(8)}"
                    part = path.with_name(f"{path.name}{own}{_PART}")
                    self._download(part, path, key, sha256=sha256, size=size, download=download)
        return path

    def _make(self) -> None:
        if not make_marked(self.objects):
            raise UserError(
                f"cache folder {self.folder}: {OBJECTS} in it was not made by this program; "
                "rename that, or name another folder with --cache"
            )
        (self.objects / _LOCKS).mkdir(exist_ok=True)

    def growth(self, objects: Collection[tuple[str, int]]) -> int:
        """Bytes by which the folder grows if these objects are fetched into it.

        Args:
            objects: sha256 and size in bytes of each.
        """
        held: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self.objects) as entries:
            for entry in entries:
                if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        held[entry.name] = entry.stat().st_size
        missing = sum(length for sha256, length in dict(objects).items() if sha256 not in held)
        # Above the limit, what was used least goes.
        before = sum(held.values())
        return max(0, min(self.max_bytes, before + missing) - before)

    def _hit(self, path: Path, key: str, *, sha256: str, size: int) -> bool:
        try:
            verify(path, key, sha256=sha256, size=size)
            os.utime(path)
        except (FileNotFoundError, CorruptObject):
            return False
        return True

    def _download(
        self,
        part: Path,
        path: Path,
        key: str,
        *,
        sha256: str,
        size: int,
        download: Callable[[Path], None],
    ) -> None:
        try:
            for attempt in range(1, TRIES + 1):
                # Another account may have put a link there, to a file of ours.
                part.unlink(missing_ok=True)
                download(part)
                try:
                    verify(part, key, sha256=sha256, size=size)
                except CorruptObject:
                    if attempt == TRIES:
                        raise
                else:
                    part.replace(path)
                    return
        finally:
            part.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Delete abandoned partial files, then the least recently used files."""
        files = []
        with os.scandir(self.objects) as entries:
            for entry in entries:
                if not _OURS.fullmatch(entry.name) or not entry.is_file(follow_symlinks=False):
                    continue
                if entry.name.endswith(_PART):
                    self._sweep(Path(entry.path))
                else:
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat()
                        files.append((status.st_mtime, status.st_size, entry.path))
        excess = sum(length for _, length, _ in files) + size - self.max_bytes
        newest = time.time() - GRACE_SECONDS
        for used, length, name in sorted(files):
            if excess <= 0 or used > newest:
                break
            Path(name).unlink(missing_ok=True)
            excess -= length

    def _sweep(self, part: Path) -> None:
        """Delete a partial file unless its download is running."""
        with (
            contextlib.suppress(LockTaken, FileNotFoundError),
            self._lock(part.name, wait=False) as locked,
        ):
            if locked or time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
                part.unlink()

    def _lock(self, name: str, *, wait: bool) -> contextlib.AbstractContextManager[bool]:
        # Lock files cannot be deleted without a race, so objects share a bounded number of them.
        return process_lock(self.objects / _LOCKS / f"{name[:3]}.lock", wait=wait)

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        return os_errors_explained(
            f"cache folder {self.folder}",
            "name a folder that can be written with --cache",
            if_full="free some space or name another folder with --cache",
        )
