"""One large file by https, gone on with where it broke off, even in another process."""

import contextlib
import hashlib
import http.client
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import IO

from tlcluster.errors import UserError, from_os_error
from tlcluster.meter import meter
from tlcluster.storage.locks import process_lock

WAITS_SECONDS = (0.5, 2.0, 8.0)
"""Before another attempt after one that brought nothing; after the last, it is given up."""
TIMEOUT_SECONDS = 60.0
BUSY = {http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_MANY_REQUESTS}
"""Refusals that ask for another attempt, as all of 5xx do."""
_BLOCK = 2**18
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def download(url: str, folder: Path, show: bool = True) -> Path:
    """The file behind a URL, in `folder`; what is there already is not downloaded again.

    Pieces are kept under a name made of the URL, the size and the server's
    version of the file (ETag or date), so that pieces of two versions never
    get into one file. The size is checked at the end.

    Raises:
        UserError: the URL is not https, the server refuses or does not
            answer, or the folder cannot be written.
    """
    checked_url(url)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with process_lock(folder / f"{_digest(url)}.lock", wait=True) as locked:
            return _persist(url, folder, show, locked)
    except OSError as error:
        raise from_os_error(
            error,
            folder,
            "name a folder that can be written with --cache",
            if_full="free some space or name another folder with --cache",
        ) from None


def checked_url(url: str) -> str:
    """The URL itself, where it is one that we download from.

    Raises:
        UserError: it is not https (http to this very machine is), or holds a credential.
    """
    parts = urllib.parse.urlsplit(url)
    if "@" in parts.netloc:
        raise UserError(
            f"{parts.scheme}://…@{parts.netloc.rpartition('@')[2]}: an address with a credential "
            "in it ends up in logs; download the file with your own tools and name its path"
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise UserError(
            f"{public(url)}: only https:// is downloaded from; give an https:// address, or "
            "download the file with your own tools and name its path"
        )
    return url


def public(url: str) -> str:
    """A URL for messages: without its query, which may be a signature."""
    return url.partition("?")[0].partition("#")[0]


class _BrokenOff(Exception):
    """The connection ended before the file did."""

    def __init__(self, reason: object, size: int = 0) -> None:
        super().__init__(str(reason))
        self.size = size
        """Bytes of the file that are here."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,
        headers: http.client.HTTPMessage, newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        return super().redirect_request(req, fp, code, msg, headers, checked_url(newurl))


_OPENER = urllib.request.build_opener(_Redirects)


def _persist(url: str, folder: Path, show: bool, locked: bool) -> Path:
    waits = iter(WAITS_SECONDS)
    most = 0
    while True:
        try:
            return _attempt(url, folder, show, locked)
        except _BrokenOff as error:
            if error.size > most:
                most = error.size
                waits = iter(WAITS_SECONDS)
                continue
            wait = next(waits, None)
            if wait is None:
                raise UserError(
                    f"{public(url)}: the download broke off ({error}); check the address and the "
                    "network and run the same command, it goes on where it is"
                ) from None
        time.sleep(wait)


def _attempt(url: str, folder: Path, show: bool, locked: bool) -> Path:
    with _request(url) as response:
        total = response.length
        if total is None:
            raise UserError(
                f"{public(url)}: the server does not say the size of the file, so that half a file "
                "looks like a whole one; download it with your own tools and name its path"
            )
        target = _target(url, folder, response.headers, total)
        if target.exists():
            _shared_part(target).unlink(missing_ok=True)  # without locks, of a slower process
            return target
        with _own_part(target, locked) as part:
            start = part.stat().st_size if part.exists() else 0
            if start == 0:
                _receive(response, part, start, total, show)
            elif start < total:
                response.close()
                _go_on(url, target, part, total, show)
            return part.rename(target)


def _go_on(url: str, target: Path, part: Path, total: int, show: bool) -> None:
    """Receive what is missing of a part."""
    start = part.stat().st_size
    with _request(url, start) as response:
        if response.status == http.HTTPStatus.OK:
            start, total = 0, response.length or 0  # a server without ranges sends all
        elif response.headers.get("Content-Range") != f"bytes {start}-{total - 1}/{total}":
            raise _BrokenOff("the server sent other bytes than it was asked for")
        if _target(url, target.parent, response.headers, total) != target:
            part.unlink()
            raise _BrokenOff("the file changed while it was downloaded")
        _receive(response, part, start, total, show)


@contextlib.contextmanager
def _own_part(target: Path, locked: bool) -> Iterator[Path]:
    """The file with the pieces that are there, which nobody else writes to.

    Without locks, a process takes it by renaming it, which only one can do, and puts it back if
    the download breaks off. Several processes may then download the same file.
    """
    shared = _shared_part(target)
    if locked:
        yield shared
        return
    own = shared.with_name(f"{shared.name}.{secrets.token_hex(8)}")
    with contextlib.suppress(FileNotFoundError):
        shared.rename(own)
    try:
        yield own
    finally:
        with contextlib.suppress(FileNotFoundError):
            own.replace(shared)


def _shared_part(target: Path) -> Path:
    return target.with_name(f"part-{target.name}")


def _request(url: str, start: int = 0) -> http.client.HTTPResponse:
    request = urllib.request.Request(url)  # noqa: S310  # see checked_url
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response: http.client.HTTPResponse = _OPENER.open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR and error.code not in BUSY:
            raise UserError(
                f"{public(url)}: the server answers {error.code} {error.reason}; check the address"
            ) from None
        raise _BrokenOff(f"{error.code} {error.reason}") from None
    except (http.client.HTTPException, OSError) as error:
        raise _BrokenOff(getattr(error, "reason", error)) from None
    return response


def _receive(
    response: http.client.HTTPResponse, part: Path, start: int, total: int, show: bool
) -> None:
    size = start
    with (
        part.open("ab" if start else "wb") as file,
        meter("downloading", total, "bytes", show) as advance,
    ):
        advance(start)
        while size < total:
            try:
                block = response.read(_BLOCK)
            except (http.client.HTTPException, OSError) as error:
                raise _BrokenOff(error, size) from None
            if not block:
                raise _BrokenOff(f"after {size} of {total} bytes", size)
            file.write(block)
            size += len(block)
            advance(len(block))


def _target(url: str, folder: Path, headers: Message, total: int) -> Path:
    version = headers.get("ETag") or headers.get("Last-Modified") or ""
    name = Path(urllib.parse.urlsplit(url).path).name
    return folder / f"{_digest(f'{url} {version} {total}')}-{name}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
