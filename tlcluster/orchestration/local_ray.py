"""A Ray of this run's own on one machine: its folder, its token, and who can reach it.

By default a local Ray listens on all interfaces, keeps its token in the home directory, readable
by others, and its sockets and logs in a folder of /tmp that everybody can write to. Here it
listens on loopback, and token, sockets and logs are in a private folder that goes with the run.
"""

import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tlcluster.errors import UserError
from tlcluster.storage.scratch import scratch_folder

LONGEST_BASE = 16
"""Characters of the path of the temporary folder. Ray's sockets lie below it, at
`tlcluster-r-<16>/session_<date>_<time>_<microseconds>_<process>/sockets/plasma_store`, and a
socket's path has at most 107."""

FALLBACK = Path("/tmp")  # noqa: S108 - a private folder is made in it


class LocalRay(NamedTuple):
    """How to start the Ray."""

    folder: Path
    """For `ray.init(_temp_dir=…)`."""
    environment: Mapping[str, str]
    """What this process and all of Ray's need in theirs."""


@contextlib.contextmanager
def private_ray() -> Iterator[LocalRay]:
    """A private folder with a new token, removed at the end.

    Raises:
        UserError: there is no temporary folder with a path that is short enough, or it is full.
    """
    base = _base()
    try:
        with scratch_folder("r", base) as private:
            token = private / "token"
            token.touch(0o600)
            token.write_text(secrets.token_hex(32))
            # Ray opens its folder to everybody; the one around it stays closed.
            folder = private / "r"
            folder.mkdir()
            yield LocalRay(folder, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)})
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        raise UserError(
            f"temporary folder {base}: {os.strerror(error.errno).lower()}; free some space there, "
            "or set TMPDIR to another folder on a local disk, with a short path"
        ) from None


def _base() -> Path:
    base = Path(tempfile.gettempdir())
    if len(os.fsencode(base)) <= LONGEST_BASE:
        return base
    if os.access(FALLBACK, os.W_OK | os.X_OK):
        return FALLBACK
    raise UserError(
        f"TMPDIR={base}: Ray's sockets need a path of at most {LONGEST_BASE} characters; set it to "
        "a shorter one on a local disk"
    )
