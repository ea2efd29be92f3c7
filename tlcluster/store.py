"""Where objects live: a directory here, a bucket in `tlcluster.s3`; both behave the same.

A key is a relative path with forward slashes. Puts are atomic: a reader sees
an object as a whole or not at all.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from tlcluster.cache import CorruptObject, NodeCache, verify
from tlcluster.errors import UserError
from tlcluster.paths import expanded

__all__ = [
    "CorruptObject",
    "DirectoryStore",
    "ObjectMissing",
    "Store",
    "StoredObject",
    "checked_key",
    "checked_prefix",
    "open_store",
]

_TEMPORARY = ".tlcluster-"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")


class ObjectMissing(UserError):
    """There is no object under this key."""

    def __init__(self, key: str, store: str = "the store") -> None:
        super().__init__(key, store)
        self.key = key
        self.store = store

    def __str__(self) -> str:
        return f"{self.key}: no such object in {self.store}"


class StoredObject(NamedTuple):
    """One entry of a listing."""

    key: str
    size: int
    """Bytes."""


class Store(Protocol):
    """Objects under keys. Safe for many threads and processes at once."""

    @property
    def url(self) -> str:
        """What `open_store` opens this store with, on any node; never with a credential in it."""

    def list(self, prefix: str = "") -> list[StoredObject]:
        """Every object whose key begins with `prefix`, ordered by key."""

    def get(self, key: str) -> bytes:
        """The whole object. Raises ObjectMissing."""

    def put(self, key: str, data: bytes | Path) -> None:
        """Write or replace an object with these bytes or with the content of a file."""

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        """Write an object unless the key is taken; of several writers exactly one succeeds.

        Returns False where the key was taken, also by our own first attempt
        whose answer got lost on the network: compare the content to be sure.
        """

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""

    def fetch(self, key: str, *, sha256: str, size: int) -> Path:
        """The object as a local file, its size (bytes) and sha256 verified by this very call.

        The file belongs to the store or the node's cache: read it, never write
        it, and open it soon (see `tlcluster.cache.GRACE_SECONDS`).

        Raises:
            CorruptObject: its content is not that, even after fetching it again.
            ObjectMissing: there is no such object.
        """


def open_store(url: str, cache: NodeCache | None = None, create: bool = False) -> Store:
    """The store at `s3://BUCKET/PREFIX`, in a directory, or at `file:///DIRECTORY`.

    One cheap request checks that it answers.

    Args:
        url: the address.
        cache: where fetched objects are kept; by default `NodeCache()`. A
            directory needs none, its files are verified in place.
        create: make the directory where there is none, and check that it can be written.

    Raises:
        UserError: the store cannot be used.
    """
    scheme = _SCHEME.match(url)
    if scheme is None:
        if re.match(r"(s3|https?|file):", url):
            raise UserError(f"{url}: the scheme ends in two slashes, as in s3://BUCKET/PREFIX")
        return _open_directory(Path(url), create)
    if scheme[1] == "file":
        parts = urllib.parse.urlsplit(url)
        if parts.netloc not in ("", "localhost"):
            raise UserError(f"{url}: file:// names no host; give file:///DIRECTORY")
        return _open_directory(Path(urllib.parse.unquote(parts.path)), create)
    if scheme[1] == "s3":
        # boto3 takes a third of a second to import; commands that use a directory, or only
        # print their help, need none of it.
        from tlcluster.s3 import open_bucket  # noqa: PLC0415

        bucket, prefix = _bucket_and_prefix(url)
        return open_bucket(bucket, prefix, cache or NodeCache())
    raise UserError(
        f"{scheme[1]}://…: no such kind of store; give s3://BUCKET/PREFIX or a directory"
    )


def checked_key(key: str) -> str:
    """The key itself, where it is one that stays inside any store.

    Raises:
        UserError: it is empty or absolute, has empty parts, `.` or `..`, a
            backslash or a control character, or looks like a temporary file.
    """
    parts = key.split("/")
    if (
        any(part in ("", ".", "..") or part.startswith(_TEMPORARY) for part in parts)
        or "\\" in key
        or not key.isprintable()
    ):
        raise UserError(
            f"key {key!r}: not a safe key; a key is a relative path like `train/0001.npy`"
        )
    return key


def checked_prefix(prefix: str) -> str:
    """The beginning of a key, as `checked_key`; empty, or with a slash at the end, is fine."""
    if prefix:
        checked_key(prefix.removesuffix("/"))
    return prefix


def _bucket_and_prefix(url: str) -> tuple[str, str]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if "@" in bucket or ":" in bucket:
        raise UserError(
            "s3://…@…: a store's address holds no credential and no host; give s3://BUCKET/PREFIX, "
            "the endpoint in AWS_ENDPOINT_URL and keys the way the AWS tools take them"
        )
    if not _BUCKET.fullmatch(bucket):
        raise UserError(
            f"{url}: {bucket!r} is no bucket name; give s3://BUCKET/PREFIX with a bucket of 3 to "
            "63 letters, digits, dots and dashes"
        )
    prefix = prefix.strip("/")
    return bucket, checked_key(prefix) if prefix else ""


def _open_directory(path: Path, create: bool) -> "DirectoryStore":
    path = expanded(path).absolute()
    with _explained(path):
        # The workers of an experiment come to a new folder at the same moment: make, then look.
        if create and not path.exists():
            path.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            raise UserError(
                f"{path}: no such directory; check the path, or fill a store there: "
                f"python jobs/ingest.py --source … --store {path}"
            )
        if not path.is_dir():
            raise UserError(f"{path}: is a file; a store is a directory or s3://BUCKET/PREFIX")
        if create:
            tempfile.TemporaryFile(dir=path).close()
        else:
            os.scandir(path).close()
    return DirectoryStore(path)


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
        with _explained(top):
            for folder, _, names in os.walk(top, onerror=_unless_missing):
                for name in names:
                    path = Path(folder, name)
                    key = path.relative_to(self._folder).as_posix()
                    if key.startswith(prefix) and not name.startswith(_TEMPORARY):
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
        with _explained(path):
            path.unlink(missing_ok=True)

    def fetch(self, key: str, *, sha256: str, size: int) -> Path:
        with self._reading(key) as path:
            verify(path, key, sha256=sha256, size=size)
            return path

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        path = self._folder / checked_key(key)
        with _explained(path):
            try:
                yield path
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise ObjectMissing(key, self.url) from None

    @contextlib.contextmanager
    def _written(self, key: str, data: bytes | Path) -> Iterator[tuple[Path, Path]]:
        """The data in a temporary file beside its place, on disk before it gets its name."""
        path = self._folder / checked_key(key)
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(_TEMPORARY + secrets.token_hex(8))
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


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the file system says into one line with a way out."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason, way_out = "the disk is full", "free some space or name another store"
        else:
            reason = os.strerror(error.errno or 0).lower()
            way_out = "name a store that this account can use"
        raise UserError(f"{path}: {reason}; {way_out}") from None
