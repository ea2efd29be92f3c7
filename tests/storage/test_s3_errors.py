"""What a failure of S3 means: one line, and whether to wait or to change something."""

import http.client
import ssl

import pytest
import urllib3.exceptions
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    FlexibleChecksumError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    ProxyConnectionError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import RetriesExceededError

from tlcluster.errors import StoreUnavailable, UserError
from tlcluster.storage.protocol import ObjectMissing
from tlcluster.storage.s3_errors import FAILURES, Request, code_of, explained

REQUEST = Request("s3://bucket/data", "bucket", "train/1.npy", "https://s3.example")
SECRET_URL = "https://me:password@s3.example"


def answer(status: int, code: str | None = None) -> ClientError:
    """As botocore makes it: an answer without a body has its status for a code."""
    return ClientError(
        {
            "Error": {"Code": code or str(status), "Message": "secret\nmessage"},
            "ResponseMetadata": {"HTTPStatusCode": status},  # type: ignore[typeddict-item]
        },
        "GetObject",
    )


def text(error: Exception, request: Request = REQUEST) -> str:
    assert isinstance(error, FAILURES)
    line = str(explained(error, request))
    assert "\n" not in line
    assert "secret" not in line
    assert "password" not in line
    return line


@pytest.mark.parametrize(
    "error",
    [
        *(answer(status) for status in (408, 425, 429, 500, 502, 503, 504, 520, 599)),
        answer(503, "SlowDown"),
        answer(503, "ServiceUnavailable"),
        answer(400, "RequestTimeout"),
        answer(400, "IncompleteBody"),
        answer(400, "BadDigest"),
        answer(409, "ConditionalRequestConflict"),
        answer(404, "NoSuchUpload"),
        answer(400, "ExpiredToken"),
        answer(200, "InternalError"),  # an error in the middle of an answer that began well
        EndpointConnectionError(endpoint_url=SECRET_URL),
        ConnectTimeoutError(endpoint_url=SECRET_URL),
        ReadTimeoutError(endpoint_url=SECRET_URL),
        ProxyConnectionError(proxy_url=SECRET_URL),
        ResponseStreamingError(error="secret"),
        RetriesExceededError(ReadTimeoutError(endpoint_url=SECRET_URL)),
        IncompleteReadError(actual_bytes=1, expected_bytes=2),
        FlexibleChecksumError(error_msg="secret"),
        ResponseParserError("<html>secret"),
        SSLError(endpoint_url=SECRET_URL, error="EOF occurred in violation of protocol"),
        CredentialRetrievalError(provider="secret", error_msg="secret"),
        MetadataRetrievalError(error_msg="secret"),
        UnauthorizedSSOTokenError(),
        urllib3.exceptions.SSLError("secret"),
        urllib3.exceptions.ProtocolError("secret", http.client.IncompleteRead(b"secret")),
        ssl.SSLError(1, "secret"),
        ConnectionResetError(104, "secret"),
        TimeoutError("secret"),
        ValueError("secret"),
        KeyError("secret"),
    ],
    ids=lambda error: f"{type(error).__name__} {str(error)[:40]}",
)
def test_what_may_pass_is_to_be_waited_for(error: Exception) -> None:
    assert isinstance(explained(error, REQUEST), StoreUnavailable)
    assert text(error).startswith("s3://bucket/data")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (answer(404, "NoSuchBucket"), "no bucket 'bucket' at https://s3.example"),
        (answer(403, "InvalidAccessKeyId"), "refuses the credentials (InvalidAccessKeyId)"),
        (answer(403, "SignatureDoesNotMatch"), "refuses the credentials"),
        (answer(403, "AccessDenied"), "may not do GetObject (AccessDenied)"),
        (answer(403), "may not do GetObject (403)"),
        (answer(403, "RequestTimeTooSkewed"), "set the clock of this machine"),
        (answer(400, "AuthorizationHeaderMalformed"), "name its region in AWS_REGION"),
        (answer(301, "PermanentRedirect"), "redirects requests for bucket 'bucket'"),
        (answer(307), "redirects requests for bucket 'bucket'"),
        (RecursionError(), "redirects requests for bucket 'bucket'"),
        (answer(507, "XMinioStorageFull"), "the storage at https://s3.example is full"),
        (answer(403, "QuotaExceeded"), "the storage at https://s3.example is full"),
        (answer(418), "answered GetObject of train/1.npy with 418; check that AWS_ENDPOINT_URL"),
        (answer(501, "NotImplemented"), "AWS_REQUEST_CHECKSUM_CALCULATION=when_required"),
        (answer(400, "InvalidArgument"), "AWS_REQUEST_CHECKSUM_CALCULATION=when_required"),
        (answer(405, "MethodNotAllowed"), "check that AWS_ENDPOINT_URL is the address of an S3"),
        (NoCredentialsError(), "no credentials found"),
        (ParamValidationError(report="bad"), "see the AWS configuration"),
        (
            SSLError(endpoint_url=SECRET_URL, error="[SSL: CERTIFICATE_VERIFY_FAILED] failed"),
            "the certificate of https://s3.example is not trusted",
        ),
        (
            SSLError(endpoint_url=SECRET_URL, error=FileNotFoundError(2, "No such file")),
            "name a PEM file that exists in AWS_CA_BUNDLE",
        ),
        (
            SSLError(endpoint_url=SECRET_URL, error="[SSL: WRONG_VERSION_NUMBER] wrong"),
            "does not speak TLS",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_person_must_change_is_named(error: Exception, says: str) -> None:
    assert type(explained(error, REQUEST)) is UserError
    assert says in text(error)


def test_a_missing_object_is_one_only_if_an_object_was_asked_for() -> None:
    for error in (answer(404), answer(404, "NoSuchKey")):
        missing = explained(error, REQUEST)
        assert isinstance(missing, ObjectMissing)
        assert missing.key == "train/1.npy"
        bucket = explained(error, REQUEST._replace(key=""))
        assert type(bucket) is UserError
        assert "AWS_ENDPOINT_URL is the address of an S3 service" in str(bucket)


def test_an_answer_with_an_empty_code_is_known_by_its_status() -> None:
    error = answer(418)
    error.response["Error"]["Code"] = ""
    assert code_of(error) == "418"


def test_every_error_of_botocore_is_explained() -> None:
    """Also one that is added later: it is a matter of the configuration."""
    assert "see the AWS configuration" in text(BotoCoreError())
