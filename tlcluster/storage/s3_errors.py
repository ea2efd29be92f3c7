"""What an exception of boto3 means to the user: change something, or wait.

Messages do not repeat the text of a server or of a network error: it may hold an access key, the
password of an endpoint or a whole page of a proxy. Only errors about the AWS configuration of this
machine keep their text.
"""

import ssl
from typing import NamedTuple

import urllib3.exceptions
from botocore.exceptions import (
    BotoCoreError,
    ChecksumError,
    ClientError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    LoginError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as NetworkError
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import RetriesExceededError

from tlcluster.errors import StoreUnavailable, UserError
from tlcluster.storage.protocol import ObjectMissing

FAILURES = (
    BotoCoreError,
    ClientError,
    RetriesExceededError,
    ResponseParserError,
    # botocore lets some errors through that interrupt the body of an answer.
    urllib3.exceptions.HTTPError,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
    # botocore asks for the region again and again if an endpoint redirects and names none.
    RecursionError,
    # botocore's parser of an answer, for example of a size that is no number.
    ValueError,
    KeyError,
)
"""All that a call of boto3 raises because of the network, the server or the configuration."""

EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
REFUSED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidTokenId",
           "AuthFailure"}  # fmt: skip
TAKEN = {"412", "PreconditionFailed"}
RACE = {"409", "ConditionalRequestConflict", "OperationAborted"}
UNCONDITIONAL = {"400", "405", "501", "NotImplemented", "InvalidArgument", "InvalidRequest",
                 "InvalidHeader", "MethodNotAllowed", "NotSupported", "UnsupportedOperation",
                 "UnsupportedHeader"}  # fmt: skip
"""What services without conditional PUT answer to one. Some of it has other causes as well."""

MISSING = {"404", "NoSuchKey", "NotFound"}
_FORBIDDEN = {"401", "403", "AccessDenied", "AllAccessDisabled", "Forbidden", "UnauthorizedAccess",
              "Unauthorized"}  # fmt: skip
_CLOCK = {"RequestTimeTooSkewed", "RequestInTheFuture"}
_REGION = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException",
           "AuthorizationQueryParametersError"}  # fmt: skip
_MOVED = {"301", "302", "307", "308", "PermanentRedirect", "TemporaryRedirect", "Redirect"}
_FULL = {"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull",
         "XMinioAdminBucketQuotaExceeded"}  # fmt: skip
_LATER = {
    # Busy.
    "SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling", "ThrottlingException",
    "ThrottledException", "RequestThrottled", "RequestThrottledException", "RequestLimitExceeded",
    "BandwidthLimitExceeded", "TooManyRequests", "TooManyRequestsException", "ServiceUnavailable",
    "Busy", "XMinioServerNotInitialized",
    # Too slow, or broken on the way.
    "RequestTimeout", "RequestTimeoutException", "IncompleteBody", "BadDigest", "NoSuchUpload",
    "PriorRequestNotComplete", "ClientDisconnected",
    "InternalError", "InternalFailure",
    # The answer to a HEAD, which has no body. It may mean an expired token.
    "400",
}  # fmt: skip
_LATER_STATUSES = {408, 425, 429}

_RENEWABLE = (
    CredentialRetrievalError, MetadataRetrievalError, TokenRetrievalError, SSOError, LoginError,
)  # fmt: skip
_DAMAGED = (IncompleteReadError, ChecksumError, FlexibleChecksumError, ResponseParserError)


class Request(NamedTuple):
    """What an exception is explained with."""

    url: str
    """Of the store."""
    bucket: str
    key: str
    """Empty for a request that is about the bucket."""
    endpoint: str
    """Scheme, host and port."""

    @property
    def where(self) -> str:
        return f"{self.url}/{self.key}" if self.key else self.url


def code_of(error: BaseException) -> str:
    """The code of an S3 error, or the status of an answer without one; empty for other errors."""
    if not isinstance(error, ClientError):
        return ""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "unknown")
    return str(error.response.get("Error", {}).get("Code") or status)


def explained(error: Exception, request: Request) -> UserError | StoreUnavailable:
    """One of `FAILURES` as an exception of this program."""
    if isinstance(error, ClientError):
        return _answered(error, request)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return UserError(
            f"{request.url}: no credentials found; give them the way the AWS tools take them: "
            "AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role"
        )
    if isinstance(error, _RENEWABLE):
        return StoreUnavailable(
            f"{request.url}: the credentials cannot be renewed now ({type(error).__name__}); see "
            "the AWS configuration, or log in again"
        )
    if isinstance(error, SSLError) and (wrong := _wrong_tls(str(error), request)):
        return wrong
    if isinstance(error, NetworkError | HTTPClientError):
        return StoreUnavailable(
            f"{request.where}: {request.endpoint} cannot be reached ({type(error).__name__}); "
            "check AWS_ENDPOINT_URL, the network and the proxy settings"
        )
    if isinstance(error, RetriesExceededError):
        return StoreUnavailable(
            f"{request.where}: {request.endpoint} broke off every time it was read "
            f"({type(error.last_exception).__name__}); try again later"
        )
    if isinstance(error, RecursionError):
        return _moved(request)
    if isinstance(error, BotoCoreError) and not isinstance(error, _DAMAGED):
        line = " ".join(str(error).split())
        return UserError(f"{request.where}: {line}; see the AWS configuration")
    return StoreUnavailable(
        f"{request.where}: the answer of {request.endpoint} was damaged or broke off "
        f"({type(error).__name__}); try again later"
    )


def _answered(error: ClientError, request: Request) -> UserError | StoreUnavailable:
    url, endpoint = request.url, request.endpoint
    code, operation = code_of(error), error.operation_name
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "NoSuchBucket":
        return UserError(
            f"{url}: no bucket {request.bucket!r} at {endpoint}; check the name and "
            f"AWS_ENDPOINT_URL, or make it: aws s3 mb s3://{request.bucket}"
        )
    if code in MISSING and request.key:
        return ObjectMissing(request.key, url)
    if code in EXPIRED:
        return StoreUnavailable(
            f"{url}: {endpoint} refuses the credentials ({code}); they have expired, renew them"
        )
    if code in REFUSED:
        return UserError(
            f"{url}: {endpoint} refuses the credentials ({code}); check AWS_PROFILE or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they belong to this endpoint"
        )
    if code in _FORBIDDEN:
        return UserError(
            f"{url}: these credentials may not do {operation} ({code}) at {endpoint}; "
            "have s3:ListBucket, s3:GetObject and, to write, s3:PutObject and "
            "s3:DeleteObject granted"
        )
    if code in _CLOCK:
        return UserError(
            f"{url}: the clock of this machine and that of {endpoint} differ too much ({code}); "
            "set the clock of this machine, for example with NTP"
        )
    if code in _REGION:
        return UserError(
            f"{url}: {endpoint} is of another region than requests are signed for ({code}); name "
            "its region in AWS_REGION, or `region` in the AWS configuration"
        )
    if code in _MOVED:
        return _moved(request)
    if code in _FULL or status == 507:
        return UserError(
            f"{url}: the storage at {endpoint} is full ({code}); free some space there or name "
            "another store"
        )
    if code in _LATER | RACE or status in _LATER_STATUSES or (status >= 500 and status != 501):
        return StoreUnavailable(
            f"{url}: {endpoint} answered {operation} of {request.key or 'the bucket'} with {code}; "
            "try again later"
        )
    return UserError(
        f"{url}: {endpoint} answered {operation} of {request.key or 'the bucket'} with {code}; "
        "check that AWS_ENDPOINT_URL is the address of an S3 service; one that knows no checksums "
        "needs AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
    )


def _moved(request: Request) -> UserError:
    return UserError(
        f"{request.url}: {request.endpoint} redirects requests for bucket {request.bucket!r} to "
        "another endpoint; name that one in AWS_ENDPOINT_URL and its region in AWS_REGION"
    )


def _wrong_tls(text: str, request: Request) -> UserError | None:
    """What a person must change about TLS; None if the connection only broke."""
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return UserError(
            f"{request.url}: the certificate of {request.endpoint} is not trusted; name the file "
            "with the certificate of its authority in AWS_CA_BUNDLE"
        )
    if "[X509" in text or "[PEM" in text or "[Errno" in text:
        return UserError(
            f"{request.url}: the certificates for {request.endpoint} cannot be read; name a PEM "
            "file that exists in AWS_CA_BUNDLE, or unset it"
        )
    if "WRONG_VERSION_NUMBER" in text:
        return UserError(
            f"{request.url}: {request.endpoint} does not speak TLS; give its address as http:// "
            "in AWS_ENDPOINT_URL"
        )
    return None
