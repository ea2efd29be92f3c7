"""A directory as a store."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from tlcluster.errors import os_errors_explained
from tlcluster.storage.cache import verify
from tlcluster.storage.protocol import (
    TEMPORARY,
    ObjectMissing,
    StoredObject,
    checked_key,
    checked_prefix,
)


class DirectoryStore:
    """A directory as a store: a key is a path inside it. On a shared file system, for all nodes."""

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

    def get(self, key: str) -> bytes:
        with self._reading(key) as path:
            return path.read_bytes()

    def put(self, key: str, data: bytes | Path) -> None:
        with self._written(key, data) as (temporary, path):
            temporary.replace(path)

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        with self._written(key, data) as (temporary, path):
            try:
                # A hard link is the rename that refuses to replace.
                path.hardlink_to(temporary)
            except FileExistsError:
                return False
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
            try:
                yield path
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise ObjectMissing(key, self.url) from None

    @contextlib.contextmanager
    def _written(self, key: str, data: bytes | Path) -> Iterator[tuple[Path, Path]]:
        """The data in a temporary file beside its place, on disk before it gets its name."""
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
