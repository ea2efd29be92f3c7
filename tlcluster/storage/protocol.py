"""What a store is: objects under keys. A directory and a bucket behave the same.

A key is a relative path with forward slashes. Puts are atomic: a reader sees
an object as a whole or not at all.
"""

from pathlib import Path
from typing import NamedTuple, Protocol

from tlcluster.errors import UserError

LARGEST = 2**33
"""Bytes of the largest object that is read into memory: 8 GiB."""
LARGEST_RECORD = 2**28
"""Bytes of the largest object of JSON: a million epochs, or an index of a million shards."""
TEMPORARY = ".tlcluster-"
"""Prefix of the names of files in a directory while they are written."""


class ObjectMissing(UserError):
    """There is no object under this key."""

    def __init__(self, key: str, store: str = "the store") -> None:
        super().__init__(key, store)
        self.key = key
        self.store = store

    def __str__(self) -> str:
        return f"{self.key}: no such object in {self.store}"


class ObjectTooLarge(UserError):
    """An object is larger than anything that this program writes under such a key."""

    def __init__(self, key: str, store: str, most: int) -> None:
        super().__init__(key, store, most)
        self.key, self.store, self.most = key, store, most

    def __str__(self) -> str:
        return (
            f"{self.store}/{self.key}: has more than {self.most:,} bytes; this is no object that "
            "tlcluster wrote: restore it, or name another place"
        )


class StoredObject(NamedTuple):
    """One entry of a listing."""

    key: str
    size: int
    """Bytes."""


class Store(Protocol):
    """Objects under keys. Safe for many threads and processes at once.

    Every operation raises UserError if a person must change something, and
    StoreUnavailable if storage does not answer now.
    """

    @property
    def url(self) -> str:
        """The address for `open_store`, on any node; it never holds a credential."""

    def list(self, prefix: str = "") -> list[StoredObject]:
        """Every object with a key that starts with `prefix`, ordered by key."""

    def get(self, key: str, most: int = LARGEST) -> bytes:
        """The whole object.

        Raises:
            ObjectMissing: there is no such object.
            UserError: it has more than `most` bytes.
        """

    def put(self, key: str, data: bytes | Path) -> None:
        """Write or replace an object with these bytes or with the content of a file."""

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        """Write an object unless the key is taken; of several writers exactly one succeeds.

        Returns False if the key was taken. That includes our own first attempt,
        if its answer was lost on the network: compare the content to be sure.
        """

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""

    def fetch(self, key: str, *, sha256: str, size: int) -> Path:
        """The object as a local file. This call has verified its size (bytes) and sha256.

        The file belongs to the store or the node's cache. Only read it, and
        open it soon (see `tlcluster.storage.cache.GRACE_SECONDS`).

        Raises:
            CorruptObject: its content is not that, even after fetching it again.
            ObjectMissing: there is no such object.
        """


class CorruptObject(UserError):
    """The content of an object differs from the index, even after fetching it again."""

    def __init__(self, key: str, expected: str, found: str) -> None:
        super().__init__(key, expected, found)
        self.key = key
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return (
            f"{self.key}: the object is damaged: expected {self.expected}, found {self.found}; "
            "delete it and ingest the same source again"
        )


def checked_key(key: str) -> str:
    """Return the key if it stays inside any store.

    Raises:
        UserError: it is empty or absolute, has empty parts, `.` or `..`, a
            backslash or a control character, or looks like a temporary file.
    """
    parts = key.split("/")
    if (
        any(part in ("", ".", "..") or part.startswith(TEMPORARY) for part in parts)
        or "\\" in key
        or not key.isprintable()
    ):
        raise UserError(
            f"key {key!r}: not a safe key; a key is a relative path like `train/0001.npy`"
        )
    return key


def checked_prefix(prefix: str) -> str:
    """Like `checked_key` for the start of a key, which may be empty or end with a slash."""
    if prefix:
        checked_key(prefix.removesuffix("/"))
    return prefix
