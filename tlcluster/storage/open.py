"""An address → the store there."""

import os
import re
import tempfile
import urllib.parse
from pathlib import Path

from tlcluster.errors import StoreUnavailable, UserError
from tlcluster.paths import expanded, typed
from tlcluster.storage.cache import NodeCache
from tlcluster.storage.directory import DirectoryStore, explained
from tlcluster.storage.protocol import Store, checked_key

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")


def open_store(
    url: str, cache: NodeCache | None = None, create: bool = False, check: bool = True
) -> Store:
    """The store at `s3://BUCKET/PREFIX`, in a directory, or at `file:///DIRECTORY`.

    Args:
        url: the address.
        cache: where fetched objects are kept; by default `NodeCache()`. A
            directory needs none, its files are verified in place.
        create: make the directory if there is none, and check that it can be written.
        check: make one cheap request to find out whether the store answers. A
            caller that can wait opens without it, uses the store through
            `tlcluster.storage.patient`, and survives a start during an outage.

    Raises:
        UserError: the store cannot be used. With `check` that includes one
            that does not answer, since its address is most likely wrong.
    """
    try:
        return _open(url, cache, create, check)
    except StoreUnavailable as error:
        raise UserError(str(error)) from None


def _open(url: str, cache: NodeCache | None, create: bool, check: bool) -> Store:
    scheme = _SCHEME.match(url)
    if scheme is None:
        if re.match(r"(s3|https?|file):", url):
            raise UserError(f"{url}: the scheme ends in two slashes, as in s3://BUCKET/PREFIX")
        return _open_directory(Path(url), create, check)
    if scheme[1] == "file":
        parts = urllib.parse.urlsplit(url)
        if parts.netloc not in ("", "localhost"):
            raise UserError(f"{url}: file:// names no host; give file:///DIRECTORY")
        return _open_directory(Path(urllib.parse.unquote(parts.path)), create, check)
    if scheme[1] == "s3":
        # boto3 takes a third of a second to import; commands that use a directory, or only
        # print their help, need none of it.
        from tlcluster.storage.s3 import S3Store, open_bucket  # noqa: PLC0415

        bucket, prefix = _bucket_and_prefix(url)
        opened = open_bucket if check else S3Store
        return opened(bucket, prefix, cache or NodeCache())
    raise UserError(
        f"{scheme[1]}://…: no such kind of store; give s3://BUCKET/PREFIX or a directory"
    )


def _bucket_and_prefix(url: str) -> tuple[str, str]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if "@" in bucket or ":" in bucket:
        raise UserError(
            "s3://…@…: a store's address holds no credential and no host; give s3://BUCKET/PREFIX, "
            "the endpoint in AWS_ENDPOINT_URL and keys the way the AWS tools take them"
        )
    if not _BUCKET.fullmatch(bucket):
        raise UserError(
            f"{url}: {bucket!r} is not a bucket name; give s3://BUCKET/PREFIX with a bucket of 3 "
            "to 63 letters, digits, dots and dashes"
        )
    prefix = prefix.strip("/")
    return bucket, checked_key(prefix) if prefix else ""


def _open_directory(path: Path, create: bool, check: bool) -> DirectoryStore:
    path = expanded(path).absolute()
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
