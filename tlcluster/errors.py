"""The exceptions of this program: a person must change something, or it only takes time.

`from_os_error` is the one place that turns an OSError into one of them.
"""

import contextlib
import errno
from collections.abc import Iterator


class UserError(Exception):
    """Something the user gave cannot be used. Never retried.

    The message is one line that names the value, what is allowed and the way
    out. Commands print it and end with exit status 2; see `tlcluster.cli`.
    """


class StoreUnavailable(Exception):
    """Storage does not answer now, and may answer later. Retried with backoff.

    The message is one line that names the place and what went wrong, for
    example a network failure, a 503 or a stale NFS handle.
    """


FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""A disk or a quota is full."""

_AWAY_NAMES = (
    "EIO EREMOTEIO ESTALE ETIMEDOUT EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH ENETRESET "
    "ECONNREFUSED ECONNRESET ECONNABORTED ENOTCONN ESHUTDOWN ENOLINK ECOMM"
)
AWAY = frozenset(getattr(errno, name) for name in _AWAY_NAMES.split() if hasattr(errno, name))
"""What a network file system answers while its server is away. macOS lacks some of these."""


def from_os_error(
    error: OSError, place: object, way_out: str, *, if_full: str | None = None
) -> UserError | StoreUnavailable:
    """What an OSError means to the user: `PLACE: REASON; WAY OUT`.

    StoreUnavailable if a network file system does not answer, else UserError.

    Args:
        error: the error.
        place: the file, folder or flag that the message begins with.
        way_out: what the user can do.
        if_full: what the user can do if the disk or the quota is full; by default `way_out`.
    """
    if error.errno in AWAY:
        return StoreUnavailable(f"{place}: {reason(error)}; its file system does not answer now")
    if error.errno in FULL:
        return UserError(f"{place}: the disk is full; {if_full or way_out}")
    return UserError(f"{place}: {reason(error)}; {way_out}")


@contextlib.contextmanager
def os_errors_explained(
    place: object, way_out: str, *, if_full: str | None = None
) -> Iterator[None]:
    """Inside the block an OSError becomes what `from_os_error` makes of it."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, place, way_out, if_full=if_full) from None


def reason(error: OSError) -> str:
    """What went wrong, without a number, a path or a capital letter at the beginning."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:] or type(error).__name__
