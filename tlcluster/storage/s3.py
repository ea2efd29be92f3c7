"""Objects in an S3 bucket. Only this module and `s3_errors` use boto3.

Credentials, region and endpoint come from boto3's standard chain (environment,
profile, web identity, instance role, `AWS_ENDPOINT_URL`). Nothing here reads
them, and no message repeats more of an endpoint than scheme, host and port.
"""

import contextlib
import io
import logging
import os
import re
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import boto3
import botocore.config
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError

from tlcluster.errors import StoreUnavailable, UserError, reason
from tlcluster.plain_files import not_through_links
from tlcluster.storage.cache import NodeCache
from tlcluster.storage.protocol import (
    LARGEST,
    ObjectTooLarge,
    StoredObject,
    checked_key,
    checked_prefix,
)
from tlcluster.storage.s3_errors import (
    EXPIRED,
    FAILURES,
    MISSING,
    RACE,
    REFUSED,
    TAKEN,
    UNCONDITIONAL,
    Request,
    code_of,
    explained,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Result = TypeVar("Result")
_log = logging.getLogger(__name__)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")

_WORK = botocore.config.Config(
    retries={"mode": "adaptive", "total_max_attempts": 6},
    connect_timeout=10,
    read_timeout=60,
    max_pool_connections=32,
    # Shards, features and checkpoints are verified by their sha256 already. To have botocore
    # verify as well, s3transfer would begin every download with a HEAD.
    response_checksum_validation="when_required",
)
"""Rides out short trouble; for longer outages see `tlcluster.storage.patient`."""
_CHECK = botocore.config.Config(
    retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=5, read_timeout=20
)
"""For the first request: a wrong address is reported soon, a busy server is asked again."""
# Callers bring their own threads, one per object; threads per object on top only add overhead.
_TRANSFER = TransferConfig(use_threads=False)
# The weights of VGG16 with a head are 60 MB. One request takes them to stores without multipart
# uploads too.
_UPLOAD = TransferConfig(use_threads=False, multipart_threshold=2**26, multipart_chunksize=2**26)

# A HEAD, with which some versions of s3transfer begin a download, has no body in its answer:
# credentials that are refused only show as its status.
_RENEWABLE = EXPIRED | REFUSED | {"400", "403"}
_MOST_LISTED = 2_000_000
"""A data set of a million images has at most 62,500 shards."""
_TOKEN_FILE = "AWS_WEB_IDENTITY_TOKEN_FILE"  # noqa: S105 - the name of a variable
_RACE_WAITS = (0.2, 1.0, 5.0)
"""Seconds before each next try of a conditional put that met another one under way."""


def open_address(
    url: str,
    cache: NodeCache,
    *,
    create: bool,  # noqa: ARG001 - a bucket is not made, and a prefix needs no making
    check: bool,
) -> "S3Store":
    """The store at `s3://BUCKET/PREFIX`; see `tlcluster.storage.open`."""
    bucket, prefix = _bucket_and_prefix(url)
    opened = open_bucket if check else S3Store
    return opened(bucket, prefix, cache)


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


def open_bucket(bucket: str, prefix: str, cache: NodeCache) -> "S3Store":
    """The store under a prefix of a bucket, after one listing of one key has worked.

    Raises:
        UserError: no credentials, wrong ones, or no such bucket.
        StoreUnavailable: the endpoint does not answer, or not now.
    """
    S3Store(bucket, prefix, cache, _CHECK).list_one()
    return S3Store(bucket, prefix, cache)


class S3Store:
    """A prefix of a bucket as a store. One value serves any number of threads."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        cache: NodeCache,
        config: botocore.config.Config | None = None,
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._cache = cache
        self._renewing = threading.Lock()
        self._config = _WORK.merge(config) if config else _WORK
        self._client = self._connect()
        self.conditional = True
        """False once the service has said that it has no conditional PUT."""

    @property
    def url(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def list_one(self) -> None:
        """The cheapest request that needs endpoint, credentials and bucket to be right."""
        self._call(
            "",
            lambda client: client.list_objects_v2(
                Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1
            ),
        )

    def list(self, prefix: str = "") -> list[StoredObject]:
        def pages(client: "S3Client") -> list[StoredObject]:
            found: list[StoredObject] = []
            for page in client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + checked_prefix(prefix)
            ):
                found += (
                    StoredObject(item["Key"].removeprefix(self._prefix), item["Size"])
                    for item in page.get("Contents", ())
                    if not item["Key"].endswith("/")  # some tools leave empty objects for folders
                )
                if len(found) > _MOST_LISTED:
                    raise UserError(
                        f"{self.url}/{prefix}: more than {_MOST_LISTED:,} objects, which is no "
                        "place of tlcluster; name another one"
                    )
            return found

        return sorted(self._call(prefix, pages))

    def get(self, key: str, most: int = LARGEST) -> bytes:
        def download(client: "S3Client") -> bytes:
            body = _Bounded(ObjectTooLarge(key, self.url, most))
            self._download(client, key, body)
            return body.getvalue()

        return self._call(key, download)

    def put(self, key: str, data: bytes | Path) -> None:
        def upload(client: "S3Client") -> None:
            with _opened(data) as body:
                client.upload_fileobj(body, self._bucket, self._name(key), Config=_UPLOAD)

        self._call(key, upload)

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        waits = iter(_RACE_WAITS)

        def upload(client: "S3Client") -> bool:
            if not self.conditional:
                return self._put_unless_there(client, key, data)
            try:
                with _opened(data) as body:
                    client.put_object(
                        Bucket=self._bucket, Key=self._name(key), Body=body, IfNoneMatch="*"
                    )
            except ClientError as error:
                code = code_of(error)
                if code in TAKEN:
                    return False
                wait = next(waits, None)
                if code in RACE and wait is not None:
                    time.sleep(wait)
                    return upload(client)
                if code not in UNCONDITIONAL:
                    raise
                done = self._put_unless_there(client, key, data)
                # It was the condition that was refused, since without it the put is taken.
                self.conditional = False
                _log.warning(
                    "%s: this service has no conditional PUT; do not write to one place from "
                    "two commands at the same time",
                    self.url,
                )
                return done
            return True

        return self._call(key, upload)

    def _put_unless_there(self, client: "S3Client", key: str, data: bytes | Path) -> bool:
        """Look, then put: another writer in between is not noticed."""
        try:
            client.head_object(Bucket=self._bucket, Key=self._name(key))
        except ClientError as error:
            if code_of(error) not in MISSING:
                raise
        else:
            return False
        with _opened(data) as body:
            client.put_object(Bucket=self._bucket, Key=self._name(key), Body=body)
        return True

    def delete(self, key: str) -> None:
        self._call(
            key, lambda client: client.delete_object(Bucket=self._bucket, Key=self._name(key))
        )

    def fetch(self, key: str, *, sha256: str, size: int) -> Path:
        def download(path: Path) -> None:
            def into(client: "S3Client") -> None:
                with open(path, "wb", opener=not_through_links) as file:
                    self._download(client, key, file)

            self._call(key, into)

        return self._cache.get(checked_key(key), sha256=sha256, size=size, download=download)

    def _name(self, key: str) -> str:
        return self._prefix + checked_key(key)

    def _download(self, client: "S3Client", key: str, into: BinaryIO) -> None:
        # s3transfer compares each body with its announced length and reads short ones again.
        client.download_fileobj(self._bucket, self._name(key), into, Config=_TRANSFER)

    def _connect(self, session: boto3.session.Session | None = None) -> "S3Client":
        try:
            return (session or boto3.session.Session()).client("s3", config=self._config)
        except BotoCoreError as error:
            raise UserError(f"{self.url}: {error}; see the AWS configuration") from None
        except ValueError as error:
            if "endpoint" in str(error).lower():
                raise UserError(
                    f"{self.url}: AWS_ENDPOINT_URL is not an address; give http(s)://HOST:PORT"
                ) from None
            raise UserError(
                f"{self.url}: a value of the AWS configuration cannot be used: {error}; see the "
                "variables that begin with AWS_"
            ) from None

    def _call(self, key: str, action: Callable[["S3Client"], Result]) -> Result:
        """`action(client)`, once more with fresh credentials if they are refused."""
        client = self._client
        try:
            try:
                return action(client)
            except ClientError as error:
                # botocore renews what it knows to expire. A token in a file or the environment
                # that another program renews is only read again by a new session.
                if code_of(error) not in _RENEWABLE:
                    raise
            return action(self._renewed(client))
        except FAILURES as error:
            raise explained(error, self._request(client, key)) from None
        except OSError as error:
            # Other files are opened by this module, and their errors are explained by its callers.
            if error.filename and error.filename == os.environ.get(_TOKEN_FILE):
                raise UserError(
                    f"{self.url}: {_TOKEN_FILE}={error.filename}: {reason(error)}; name a file "
                    "that can be read, or unset it"
                ) from None
            raise

    def _renewed(self, client: "S3Client") -> "S3Client":
        """A client with fresh credentials, the same one for all threads.

        Raises:
            StoreUnavailable: there are none now. The old client stays, so that the next call
                tries to renew it again.
        """
        with self._renewing:
            if self._client is client:
                found: object = None
                with contextlib.suppress(BotoCoreError):  # a file that is half written, for example
                    session = boto3.session.Session()
                    found = session.get_credentials()
                if found is None:
                    raise StoreUnavailable(
                        f"{self.url}: the credentials are refused and no others are found now; "
                        "give fresh ones the way the AWS tools take them"
                    )
                self._client = self._connect(session)
            return self._client

    def _request(self, client: "S3Client", key: str) -> Request:
        parts = urllib.parse.urlsplit(client.meta.endpoint_url)
        endpoint = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        return Request(self.url, self._bucket, key, endpoint)


class _Bounded(io.BytesIO):
    """Memory for the body of an answer, up to a limit."""

    def __init__(self, error: ObjectTooLarge) -> None:
        super().__init__()
        self._error = error

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > self._error.most:
            raise self._error
        return super().write(data)


def _opened(data: bytes | Path) -> BinaryIO:
    return data.open("rb") if isinstance(data, Path) else io.BytesIO(data)
