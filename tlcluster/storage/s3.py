"""Objects in an S3 bucket; the only file that knows boto3.

Credentials, region and endpoint come from boto3's standard chain (environment,
profile, web identity, instance role, `AWS_ENDPOINT_URL`). Nothing here reads
them, and no message repeats more of an endpoint than scheme, host and port.
"""

import io
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import boto3
import botocore.config
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as NetworkError
from s3transfer.exceptions import RetriesExceededError

from tlcluster.errors import UserError
from tlcluster.storage.cache import NodeCache
from tlcluster.storage.protocol import ObjectMissing, StoredObject, checked_key, checked_prefix

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Result = TypeVar("Result")

_WORK = botocore.config.Config(
    retries={"mode": "adaptive", "total_max_attempts": 10},
    connect_timeout=10,
    read_timeout=60,
    max_pool_connections=32,
    # What matters is verified by its sha256 already, shards, features and checkpoints. To have
    # botocore verify as well, s3transfer would begin every download with a HEAD.
    response_checksum_validation="when_required",
)
# A wrong address should be told at once, not after minutes of patience.
_CHECK = _WORK.merge(botocore.config.Config(retries={"mode": "standard", "total_max_attempts": 2}))
# Callers bring their own threads, one an object; threads per object on top only add overhead.
_TRANSFER = TransferConfig(use_threads=False)

_MISSING = {"404", "NoSuchKey", "NotFound"}
# Some versions of s3transfer begin a download with a HEAD, whose answer has no body: there, all
# that is told is the status.
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "400"}
_UNKNOWN = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AuthFailure"} | _EXPIRED
_FORBIDDEN = {"403", "AccessDenied", "AllAccessDisabled", "Forbidden", "UnauthorizedAccess"}
_TAKEN = {"412", "PreconditionFailed"}
_RACE = {"409", "ConditionalRequestConflict"}
_RACE_WAITS = (0.2, 1.0, 5.0)
"""Seconds before a conditional put is tried again that met another one under way."""


def open_bucket(bucket: str, prefix: str, cache: NodeCache) -> "S3Store":
    """The store under a prefix of a bucket, after one listing of one key has worked.

    Raises:
        UserError: no endpoint, no credentials, wrong ones, or no such bucket.
    """
    S3Store(bucket, prefix, cache, _CHECK).list_one()
    return S3Store(bucket, prefix, cache)


class S3Store:
    """A prefix of a bucket as a store. One value serves any number of threads."""

    def __init__(
        self, bucket: str, prefix: str, cache: NodeCache, config: botocore.config.Config = _WORK
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._cache = cache
        self._renewing = threading.Lock()
        self._config = config
        self._client = self._connect()

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
            return [
                StoredObject(item["Key"].removeprefix(self._prefix), item["Size"])
                for page in client.get_paginator("list_objects_v2").paginate(
                    Bucket=self._bucket, Prefix=self._prefix + checked_prefix(prefix)
                )
                for item in page.get("Contents", ())
                if not item["Key"].endswith("/")  # some tools leave empty objects for folders
            ]

        return sorted(self._call(prefix, pages))

    def get(self, key: str) -> bytes:
        def download(client: "S3Client") -> bytes:
            body = io.BytesIO()
            self._download(client, key, body)
            return body.getvalue()

        return self._call(key, download)

    def put(self, key: str, data: bytes | Path) -> None:
        def upload(client: "S3Client") -> None:
            with _opened(data) as body:
                client.upload_fileobj(body, self._bucket, self._name(key), Config=_TRANSFER)

        self._call(key, upload)

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        waits = iter(_RACE_WAITS)

        def upload(client: "S3Client") -> bool:
            try:
                with _opened(data) as body:
                    client.put_object(
                        Bucket=self._bucket, Key=self._name(key), Body=body, IfNoneMatch="*"
                    )
            except ClientError as error:
                if _code(error) in _TAKEN:
                    return False
                wait = next(waits, None)
                if _code(error) not in _RACE or wait is None:
                    raise
                time.sleep(wait)
                return upload(client)
            return True

        return self._call(key, upload)

    def delete(self, key: str) -> None:
        self._call(
            key, lambda client: client.delete_object(Bucket=self._bucket, Key=self._name(key))
        )

    def fetch(self, key: str, *, sha256: str, size: int) -> Path:
        def download(path: Path) -> None:
            def into(client: "S3Client") -> None:
                with path.open("wb") as file:
                    self._download(client, key, file)

            self._call(key, into)

        return self._cache.get(checked_key(key), sha256=sha256, size=size, download=download)

    def _name(self, key: str) -> str:
        return self._prefix + checked_key(key)

    def _download(self, client: "S3Client", key: str, into: BinaryIO) -> None:
        # s3transfer compares each body with its announced length and reads short ones again.
        client.download_fileobj(self._bucket, self._name(key), into, Config=_TRANSFER)

    def _connect(self) -> "S3Client":
        try:
            return boto3.session.Session().client("s3", config=self._config)
        except BotoCoreError as error:
            raise UserError(f"{self.url}: {error}; see the AWS configuration") from None
        except ValueError:
            raise UserError(
                f"{self.url}: AWS_ENDPOINT_URL is not an address; give http(s)://HOST:PORT"
            ) from None

    def _call(self, key: str, action: Callable[["S3Client"], Result]) -> Result:
        """`action(client)`, once more with fresh credentials where they ran out."""
        client = self._client
        try:
            try:
                return action(client)
            except ClientError as error:
                # botocore renews what it knows to expire; a token in a file or the environment
                # that something else renews is only read again by a new session.
                if _code(error) not in _EXPIRED:
                    raise
            return action(self._renewed(client))
        except (ClientError, BotoCoreError, RetriesExceededError) as error:
            raise self._explain(key, error) from None

    def _renewed(self, client: "S3Client") -> "S3Client":
        with self._renewing:
            if self._client is client:
                self._client = self._connect()
            return self._client

    def _explain(self, key: str, error: Exception) -> UserError:
        if isinstance(error, ClientError):
            return self._refused(key, _code(error), error.operation_name)
        where = f"{self.url}/{key}" if key else self.url
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return UserError(
                f"{self.url}: no credentials found; give them the way the AWS tools take them: "
                "AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role"
            )
        if isinstance(error, NetworkError | HTTPClientError):
            return UserError(
                f"{where}: {self._endpoint()} cannot be reached ({type(error).__name__}); "
                "check AWS_ENDPOINT_URL, the network and the proxy settings"
            )
        if isinstance(error, RetriesExceededError):
            return UserError(
                f"{where}: {self._endpoint()} broke off every time it was read "
                f"({type(error.last_exception).__name__}); try again later"
            )
        return UserError(f"{where}: {error}; see the AWS configuration")

    def _refused(self, key: str, code: str, operation: str) -> UserError:
        endpoint = self._endpoint()
        if code == "NoSuchBucket":
            return UserError(
                f"{self.url}: no bucket {self._bucket!r} at {endpoint}; check the name and "
                f"AWS_ENDPOINT_URL, or make it: aws s3 mb s3://{self._bucket}"
            )
        if code in _UNKNOWN:
            return UserError(
                f"{self.url}: {endpoint} refuses the credentials ({code}); check AWS_PROFILE or "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they belong to this endpoint"
            )
        if code in _FORBIDDEN:
            return UserError(
                f"{self.url}: these credentials may not do {operation} ({code}) at {endpoint}; "
                "have s3:ListBucket, s3:GetObject and, to write, s3:PutObject and "
                "s3:DeleteObject granted"
            )
        if code in _MISSING:
            return ObjectMissing(key, self.url)
        return UserError(
            f"{self.url}: {endpoint} answered {operation} of {key or 'the bucket'} with {code}; "
            "try again later"
        )

    def _endpoint(self) -> str:
        parts = urllib.parse.urlsplit(self._client.meta.endpoint_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def _opened(data: bytes | Path) -> BinaryIO:
    return data.open("rb") if isinstance(data, Path) else io.BytesIO(data)
