"""What a store is: objects under keys. A directory and a bucket behave the same.

A key is a relative path with forward slashes. Puts are atomic: a reader sees
an object as a whole or not at all.
"""

from pathlib import Path
from typing import NamedTuple, Protocol

from tlcluster.errors import UserError

TEMPORARY = ".tlcluster-"
"""How the names of files begin that a directory holds while they are written."""


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
        it, and open it soon (see `tlcluster.storage.cache.GRACE_SECONDS`).

        Raises:
            CorruptObject: its content is not that, even after fetching it again.
            ObjectMissing: there is no such object.
        """


class CorruptObject(UserError):
    """An object's content is not what the index says, and fetching it again did not help."""

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
    """The key itself, where it is one that stays inside any store.

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
    """The beginning of a key, as `checked_key`; empty, or with a slash at the end, is fine."""
    if prefix:
        checked_key(prefix.removesuffix("/"))
    return prefix
