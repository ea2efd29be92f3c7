"""A directory as a store."""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from tlcluster.errors import UserError, os_errors_explained
from tlcluster.paths import checked_text, expanded, typed
from tlcluster.plain_files import read_plain
from tlcluster.storage.cache import NodeCache, verify
from tlcluster.storage.protocol import (
    LARGEST,
    TEMPORARY,
    ObjectMissing,
    ObjectTooLarge,
    StoredObject,
    checked_key,
    checked_prefix,
)

NO_LINKS = frozenset(
    {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
)
"""What `link` answers on file systems without hard links: exFAT, Azure Files, some FUSE ones."""
CLAIM_SECONDS = 60.0
_POLL_SECONDS = 0.02


def open_address(url: str, _cache: NodeCache, *, create: bool, check: bool) -> "DirectoryStore":
    """The store in a directory or at `file:///DIRECTORY`; see `tlcluster.storage.open`."""
    if url.startswith("file://"):
        host, slash, rest = url.removeprefix("file://").partition("/")
        if host not in ("", "localhost") or not slash:
            raise UserError(f"{url}: file:// names no host; give file:///DIRECTORY")
        url = urllib.parse.unquote(slash + rest, errors="surrogateescape")
    path = checked_text(expanded(url).absolute())
    if not check:
        return DirectoryStore(path)  # a put makes the folders that it needs
    with explained(path):
        # The workers of an experiment open a new folder at the same moment: make it, then look.
        if create and not path.exists():
            path.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            raise UserError(
                f"{path}: no such directory; check the path, or fill a store there: "
                f"{typed('ingest')} --source … --store {path}"
            )
        if not path.is_dir():
            raise UserError(f"{path}: is a file; a store is a directory or s3://BUCKET/PREFIX")
        if create:
            tempfile.TemporaryFile(dir=path).close()
        else:
            os.scandir(path).close()
    return DirectoryStore(path)


class DirectoryStore:
    """A directory as a store: a key is a path in it. Several nodes need a shared file system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def url(self) -> str:
        return str(self._folder)

    def list(self, prefix: str = "") -> list[StoredObject]:
        top = self._folder / checked_prefix(prefix).rpartition("/")[0]
        found = []
        with explained(top):
            for folder, _, names in os.walk(top, onerror=_unless_missing):
                for name in names:
                    path = Path(folder, name)
                    key = path.relative_to(self._folder).as_posix()
                    if key.startswith(prefix) and not name.startswith(TEMPORARY):
                        with contextlib.suppress(FileNotFoundError):
                            found.append(StoredObject(key, path.stat().st_size))
        return sorted(found)

    def get(self, key: str, most: int = LARGEST) -> bytes:
        with self._reading(key) as path:
            try:
                return read_plain(path, most)
            except OSError as error:
                if error.errno == errno.EFBIG:
                    raise ObjectTooLarge(key, self.url, most) from None
                raise

    def put(self, key: str, data: bytes | Path) -> None:
        with self._written(key, data) as (temporary, path):
            temporary.replace(path)

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        with self._written(key, data) as (temporary, path):
            try:
                # A hard link works like a rename that refuses to replace a file.
                path.hardlink_to(temporary)
            except FileExistsError:
                # NFS repeats a request whose answer was lost: then the name is ours already.
                return temporary.stat().st_nlink > 1
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                return _renamed_if_absent(temporary, path)
        return True

    def delete(self, key: str) -> None:
        path = self._folder / checked_key(key)
        with explained(path):
            path.unlink(missing_ok=True)

    def fetch(self, key: str, *, sha256: str, size: int) -> Path:
        with self._reading(key) as path:
            verify(path, key, sha256=sha256, size=size)
            return path

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        path = self._folder / checked_key(key)
        with explained(path):
            if not path.exists():
                self._look_again(path)
            try:
                yield path
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise ObjectMissing(key, self.url) from None

    def _look_again(self, path: Path) -> None:
        """Open the folders of a file that seems to be missing.

        A client of NFS remembers for up to a minute that there was no file of a name. Opening a
        folder makes it ask the server again what is in there.
        """
        folders = [folder for folder in path.parents if folder.is_relative_to(self._folder)]
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for folder in reversed(folders):
                os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    @contextlib.contextmanager
    def _written(self, key: str, data: bytes | Path) -> Iterator[tuple[Path, Path]]:
        """Write the data to a temporary file beside its place, and sync it."""
        path = self._folder / checked_key(key)
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(TEMPORARY + secrets.token_hex(8))
            try:
                with temporary.open("xb") as file:
                    if isinstance(data, Path):
                        with data.open("rb") as source:
                            shutil.copyfileobj(source, file, 2**20)
                    else:
                        file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                yield temporary, path
            finally:
                temporary.unlink(missing_ok=True)


def _renamed_if_absent(temporary: Path, path: Path) -> bool:
    """Give a finished file its name unless that is taken, on a file system without hard links.

    A writer first creates a claim, a file beside the object, with O_EXCL: only one writer can.
    It then checks that the name is free and renames. Readers never see half an object, because
    the object appears under its name by the rename. A claim lasts for two calls of the file
    system. A claim older than `CLAIM_SECONDS` was left by a killed process and is removed.
    """
    digest = hashlib.sha256(path.name.encode()).hexdigest()[:16]
    claim = path.with_name(f"{TEMPORARY}claim-{digest}")
    while not path.exists():
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                temporary.touch()  # for the server's time, which dates the claim as well
                if temporary.stat().st_mtime - claim.stat().st_mtime > CLAIM_SECONDS:
                    claim.unlink()
            time.sleep(_POLL_SECONDS)
            continue
        try:
            if path.exists():
                return False
            temporary.replace(path)
            return True
        finally:
            claim.unlink(missing_ok=True)
    return False


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def explained(path: Path) -> contextlib.AbstractContextManager[None]:
    """Turn what the file system says into one line with a way out."""
    return os_errors_explained(
        path,
        "name a store that this account can use",
        if_full="free some space or name another store",
    )
