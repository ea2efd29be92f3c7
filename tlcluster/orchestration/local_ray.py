"""A Ray of this run's own on one machine: its folder, its token, and who can reach it.

By default a local Ray listens on all interfaces, keeps its token in the home directory, readable
by others, and its sockets and logs in a folder of /tmp that everybody can write to. Here it
listens on loopback, and token, sockets and logs are in a private folder that goes with the run.
"""

import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tlcluster.errors import UserError, os_errors_explained
from tlcluster.storage.scratch import scratch_folder

LONGEST_BASE = 12
"""Bytes of the path of the temporary folder. Ray's sockets lie below it, at
`tlcluster-r-<16>/r/session_<date>_<time>_<microseconds>_<process>/sockets/plasma_store`, and a
socket's path has at most 107."""

_PLAIN = re.compile(r"[A-Za-z0-9/._-]+")
"""Ray puts the path into command lines, and separates arguments at spaces."""

FALLBACK = Path("/tmp")  # noqa: S108 - a private folder is made in it


class LocalRay(NamedTuple):
    """How to start the Ray."""

    folder: Path
    """For `ray.init(_temp_dir=…)`."""
    environment: Mapping[str, str | None]
    """Variables of this process and of all of Ray's; None is for one that must not be set."""


@contextlib.contextmanager
def private_ray() -> Iterator[LocalRay]:
    """A private folder with a new token, removed at the end.

    Raises:
        UserError: no temporary folder has a path that is short enough, or it cannot be written.
    """
    base = _base()
    with contextlib.ExitStack() as stack:
        with os_errors_explained(
            f"temporary folder {base}",
            "set TMPDIR to a folder on a local disk that can be written, with a short path",
            if_full="free some space there, or set TMPDIR to another folder with a short path",
        ):
            private = stack.enter_context(scratch_folder("r", base))
            token = private / "token"
            token.touch(0o600)
            token.write_text(secrets.token_hex(32))
            # Ray opens its folder to every account; the one around it stays closed.
            folder = private / "r"
            folder.mkdir()
            temporary = private / "t"
            temporary.mkdir()
        yield LocalRay(
            folder,
            {
                # Without a mode, a new cluster asks for a token. A mode that is set after Ray was
                # imported is not seen by this process.
                "RAY_AUTH_MODE": None,
                "RAY_AUTH_TOKEN_PATH": str(token),
                # It would win over the path.
                "RAY_AUTH_TOKEN": None,
                # What a worker that is killed leaves there goes with the run.
                "TMPDIR": str(temporary),
            },
        )


def _base() -> Path:
    base = Path(tempfile.gettempdir())
    if len(os.fsencode(base)) <= LONGEST_BASE and _PLAIN.fullmatch(str(base)):
        return base
    if os.access(FALLBACK, os.W_OK | os.X_OK):
        return FALLBACK
    raise UserError(
        f"TMPDIR={base}: Ray's sockets need a path of at most {LONGEST_BASE} characters, without "
        "spaces and quotes; set it to such a one on a local disk"
    )
