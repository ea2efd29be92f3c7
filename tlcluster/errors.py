"""The exceptions of this program: what a person must change, and what only needs time."""


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
