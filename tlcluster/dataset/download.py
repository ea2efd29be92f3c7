"""Download one large file by https, resuming where an earlier try stopped."""

import contextlib
import hashlib
import http.client
import os
import secrets
import shutil
import stat
import tempfile
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
from tlcluster.plain_files import not_through_links
from tlcluster.storage.locks import process_lock

WAITS_SECONDS = (0.5, 2.0, 8.0)
"""Pauses before each next attempt after one that received nothing; then it gives up."""
TIMEOUT_SECONDS = 60.0
MOST_ASKED_SECONDS = 60.0
"""The longest wait that a server may ask for with Retry-After."""
_LATER = {http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_EARLY,
          http.HTTPStatus.TOO_MANY_REQUESTS}  # fmt: skip
_BLOCK = 2**18
_LONGEST_NAME = 100
"""Characters of a name that are kept; they end with the kind of archive."""
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def download(url: str, folder: Path, show: bool = True) -> Path:
    """The file behind a URL, in `folder`. Bytes that are there already are not downloaded again.

    A partial file has a name made of the URL, the size and the server's version
    of the file (ETag or date), so that two versions are never mixed. The size is
    checked at the end.

    Raises:
        UserError: the URL is not https, the server refuses or does not
            answer, or the folder cannot be written.
    """
    checked_url(url)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            process_lock(folder / f"{_digest(url)}.lock", wait=True) as locked,
            _own_parts(folder, locked) as suffix,
        ):
            return _persist(url, folder, show, suffix)
    except OSError as error:
        raise from_os_error(
            error,
            folder,
            "name a folder that can be written with --cache",
            if_full="free some space or name another folder with --cache",
        ) from None


def checked_url(url: str) -> str:
    """Return the URL if it is one that we download from.

    Raises:
        UserError: it is not an address, not https (http to this very machine is), or holds a
            credential.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        parts.netloc.encode("idna")
        _ = parts.port
    except ValueError:
        raise _no_address(url) from None
    if not url.isprintable() or " " in url:
        raise _no_address(url)
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


def _no_address(url: str) -> UserError:
    # An address that cannot be taken apart may hold a credential anywhere: none of it is shown.
    shown = "…" if "@" in url else " ".join(public(url).split())[:100]
    return UserError(
        f"{shown}: not an address; give https://HOST/PATH, with %20 instead of a space"
    )


def public(url: str) -> str:
    """A URL for messages, without its query, which may hold a signature."""
    return url.partition("?")[0].partition("#")[0]


class _BrokenOff(Exception):
    """The connection ended before the file did."""

    def __init__(self, reason: object, size: int = 0, wait: float = 0.0) -> None:
        super().__init__(str(reason))
        self.size = size
        """Bytes of the file that are here."""
        self.wait = wait
        """Seconds that the server asks us to wait."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,
        headers: http.client.HTTPMessage, newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        checked_url(newurl)
        if req.type == "https" and urllib.parse.urlsplit(newurl).scheme != "https":
            raise UserError(
                f"{public(req.full_url)}: redirects from https:// to {public(newurl)}, which is "
                "not protected; give another address, or download the file with your own tools "
                "and name its path"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_Redirects)


def _persist(url: str, folder: Path, show: bool, suffix: str) -> Path:
    waits = iter(WAITS_SECONDS)
    most = 0
    while True:
        try:
            return _attempt(url, folder, show, suffix)
        except _BrokenOff as error:
            if error.size > most:
                most = error.size
                waits = iter(WAITS_SECONDS)
                continue
            wait, asked = next(waits, None), error.wait
            if wait is None:
                raise UserError(
                    f"{public(url)}: the download broke off ({error}); check the address and the "
                    "network and run the same command, it goes on where it is"
                ) from None
        time.sleep(max(wait, asked))


def _attempt(url: str, folder: Path, show: bool, suffix: str) -> Path:
    with _request(url) as response:
        total = response.length
        if total is None:
            raise UserError(
                f"{public(url)}: the server does not say the size of the file, so that half a file "
                "looks like a whole one; download it with your own tools and name its path"
            )
        target = _target(url, folder, response.headers, total)
        shared = target.with_name(f"part-{target.name}")
        part = shared.with_name(shared.name + suffix)
        for path in (target, shared):
            _refuse_foreign(path)
        if target.exists():
            # Without locks, another process was faster.
            shared.unlink(missing_ok=True)
            part.unlink(missing_ok=True)
            return target
        if suffix and not part.exists():
            with contextlib.suppress(FileNotFoundError):
                shared.rename(part)
        start = part.stat().st_size if part.exists() else 0
        free = shutil.disk_usage(folder).free
        if total - start > free:
            raise UserError(
                f"{folder}: {public(url)} takes {total - start:,} bytes more and {free:,} are "
                "free; free some space or name another folder with --cache"
            )
        if start == 0:
            _receive(response, part, start, total, show)
        elif start < total:
            response.close()
            _go_on(url, target, part, total, show)
        return part.rename(target)


def _go_on(url: str, target: Path, part: Path, total: int, show: bool) -> None:
    """Download the rest of a partial file."""
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


def _refuse_foreign(path: Path) -> None:
    """Refuse a file that another account has put into a shared folder, or a link.

    Nobody publishes hashes to verify a download with. The account is compared with that of a new
    file: some file systems show all files as somebody else's.

    Raises:
        UserError: it is not ours.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    with tempfile.TemporaryFile(dir=path.parent) as probe:
        ours = os.fstat(probe.fileno()).st_uid
    if found.st_uid != ours or not stat.S_ISREG(found.st_mode):
        raise UserError(
            f"{path}: was not downloaded by this account; remove it, or name another folder with "
            "--cache"
        )


@contextlib.contextmanager
def _own_parts(folder: Path, locked: bool) -> Iterator[str]:
    """The end of the name of partial files that no other process writes to meanwhile.

    It is empty if this process holds the lock. Without locks, a process takes a partial file by
    renaming it, which only one can do, and renames it back if it gives up. Several processes may
    then download the same file.
    """
    if locked:
        yield ""
        return
    suffix = f".{secrets.token_hex(8)}"
    try:
        yield suffix
    finally:
        for own in folder.glob(f"part-*{suffix}"):
            own.replace(own.with_name(own.name.removesuffix(suffix)))


def _request(url: str, start: int = 0) -> http.client.HTTPResponse:
    request = urllib.request.Request(url)  # noqa: S310  # see checked_url
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response: http.client.HTTPResponse = _OPENER.open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR and error.code not in _LATER:
            raise UserError(
                f"{public(url)}: the server answers {error.code} {error.reason}; check the address"
            ) from None
        raise _BrokenOff(
            f"{error.code} {error.reason}", wait=_asked(error.headers.get("Retry-After"))
        ) from None
    except (http.client.InvalidURL, ValueError):
        # `checked_url` has found nothing wrong with the URL itself.
        raise UserError(
            f"{public(url)}: the server redirects to something that is not an address; check the "
            "address, or download the file with your own tools and name its path"
        ) from None
    except (http.client.HTTPException, OSError) as error:
        raise _BrokenOff(getattr(error, "reason", error)) from None
    return response


def _asked(header: str | None) -> float:
    """Seconds of a Retry-After header; 0 if there is none or if it gives a date."""
    return min(float(header), MOST_ASKED_SECONDS) if header and header.isdecimal() else 0.0


def _receive(
    response: http.client.HTTPResponse, part: Path, start: int, total: int, show: bool
) -> None:
    size = start
    with (
        open(part, "ab" if start else "wb", opener=not_through_links) as file,
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
    name = Path(urllib.parse.urlsplit(url).path).name[-_LONGEST_NAME:]
    return folder / f"{_digest(f'{url} {version} {total}')}-{name}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
