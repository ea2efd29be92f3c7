"""One large file by http(s): whole, once, and gone on with where it broke off."""

import contextlib
import errno
import fcntl
import http.server
import os
import shutil
import ssl
import subprocess
import tarfile
import threading
import time
import types
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import tlcluster.dataset.download
from tlcluster.dataset.download import MOST_ASKED_SECONDS, checked_url, download, public
from tlcluster.dataset.sources import open_source
from tlcluster.errors import UserError


class Server(http.server.ThreadingHTTPServer):
    """Serves one file on loopback, with ranges, and breaks off as often as it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = os.urandom(3_000_000)
        self.etag: str | None = '"1"'
        self.ranges = True
        self.most: int | None = None
        """Bytes after which every answer breaks off."""
        self.answers: int | None = None
        """Answers that bring anything at all."""
        self.statuses: list[int] = []
        """What the next answers are, before any with content."""
        self.retry_after: list[str] = []
        self.redirect: str | None = None
        self.shift = 0
        """Bytes by which answers to a Range miss it."""
        self.length = True
        self.requested: list[str | None] = []
        """The Range of every request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data/CINIC-10.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.requested.append(asked)
        if server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.end_headers()
            return
        if server.statuses:
            self.send_response(server.statuses.pop(0))
            if server.retry_after:
                self.send_header("Retry-After", server.retry_after.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        start += server.shift if start else 0
        body = server.body[start:]
        self.send_response(206 if start else 200)
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        if start:
            last = len(server.body) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(server.body)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        if server.answers is not None:
            server.answers -= 1
        gone = server.answers is not None and server.answers < 0
        with contextlib.suppress(ConnectionError):
            self.wfile.write(b"" if gone else body[: server.most])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(tlcluster.dataset.download, "WAITS_SECONDS", (0.0, 0.0, 0.0))
    with Server() as server:
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        yield server
        server.shutdown()


def get(server: Server, folder: Path) -> Path:
    return download(server.url, folder, show=False)


def refusal(url: str, folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        download(url, folder, show=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*"))


@pytest.mark.parametrize("kind", ["link", "account"])
@pytest.mark.parametrize("partial", [True, False])
def test_what_this_account_has_not_downloaded_is_refused_and_not_written_to(
    kind: str, partial: bool, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache folder that several accounts can write to."""
    path = get(server, tmp_path / "cache")
    planted = path.with_name(f"part-{path.name}") if partial else path
    path.unlink()
    (tmp_path / "mine").write_bytes(b"precious")
    if kind == "link":
        planted.symlink_to(tmp_path / "mine")
    else:
        planted.write_bytes(b"poison")
        real = Path.lstat
        other = {"st_uid": os.getuid() + 1, "st_mode": real(planted).st_mode}
        monkeypatch.setattr(
            Path,
            "lstat",
            lambda self: types.SimpleNamespace(**other) if self == planted else real(self),
        )
    text = refusal(server.url, tmp_path / "cache")
    assert text == (
        f"{planted}: was not downloaded by this account; remove it, or name another folder with "
        "--cache"
    )
    assert (tmp_path / "mine").read_bytes() == b"precious"


def test_a_file_that_the_disk_has_no_room_for_is_refused_before_it_comes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    assert refusal(server.url, tmp_path) == (
        f"{tmp_path}: {server.url} takes 3,000,000 bytes more and 1,000 are free; free some space "
        "or name another folder with --cache"
    )
    assert parts(tmp_path) == []


def test_an_address_with_a_long_name_is_downloaded(server: Server, tmp_path: Path) -> None:
    long = server.url.replace("CINIC-10", "c" * 5000)
    assert download(long, tmp_path, show=False).name.endswith("c.tar.gz")


def test_a_file_comes_whole_and_keeps_its_name(server: Server, tmp_path: Path) -> None:
    path = get(server, tmp_path / "new")
    assert path.read_bytes() == server.body
    assert path.name.endswith("-CINIC-10.tar.gz")
    assert parts(path.parent) == []


def test_what_is_there_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    path = get(server, tmp_path)
    written = path.stat().st_mtime_ns
    assert get(server, tmp_path) == path
    assert path.stat().st_mtime_ns == written


def test_a_download_that_breaks_off_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.most = 800_000
    assert get(server, tmp_path).read_bytes() == server.body
    asked = [int(value.removeprefix("bytes=")[:-1]) for value in server.requested if value]
    assert asked == [800_000, 1_600_000, 2_400_000]


def test_another_process_goes_on_with_what_one_left(server: Server, tmp_path: Path) -> None:
    server.most, server.answers = 1_000_000, 1
    text = refusal(server.url, tmp_path)
    assert text == (
        f"{server.url}: the download broke off (after 1000000 of 3000000 bytes); check the "
        "address and the network and run the same command, it goes on where it is"
    )
    (part,) = parts(tmp_path)
    assert part.read_bytes() == server.body[:1_000_000]
    server.requested.clear()
    server.answers = server.most = None
    assert get(server, tmp_path).read_bytes() == server.body
    assert server.requested == [None, "bytes=1000000-"]


def test_a_part_that_was_whole_needs_no_more_bytes(server: Server, tmp_path: Path) -> None:
    path = get(server, tmp_path)
    path.rename(path.with_name(f"part-{path.name}"))
    server.requested.clear()
    assert get(server, tmp_path).read_bytes() == server.body
    assert server.requested == [None]


def test_a_server_without_ranges_begins_again(server: Server, tmp_path: Path) -> None:
    server.most, server.answers = 2_000_000, 1
    refusal(server.url, tmp_path)
    server.answers = server.most = None
    server.ranges = False
    assert get(server, tmp_path).read_bytes() == server.body


def test_bytes_that_were_not_asked_for_are_not_taken(server: Server, tmp_path: Path) -> None:
    server.most, server.answers = 1_000_000, 1
    refusal(server.url, tmp_path)
    server.answers = server.most = None
    server.shift = 7
    assert "the server sent other bytes than it was asked for" in refusal(server.url, tmp_path)
    server.shift = 0
    assert get(server, tmp_path).read_bytes() == server.body


def test_a_server_that_never_gets_to_the_end_is_given_up(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.most = 2_000_000
    assert "after 2000000 of 3000000 bytes" in refusal(server.url, tmp_path)


@pytest.mark.parametrize("etag", ['"1"', None])
def test_another_version_of_the_file_is_never_mixed_in(
    server: Server, tmp_path: Path, etag: str | None
) -> None:
    server.etag = etag
    server.most, server.answers = 2_000_000, 1
    refusal(server.url, tmp_path)
    server.answers = server.most = None
    server.body = os.urandom(3_000_001)
    server.etag = '"2"' if etag else None
    assert get(server, tmp_path).read_bytes() == server.body


def test_a_file_that_changes_in_the_middle_is_never_mixed(server: Server, tmp_path: Path) -> None:
    first = server.body
    server.most, server.answers = 2_000_000, 1
    refusal(server.url, tmp_path)
    server.answers = server.most = None
    second = os.urandom(len(first))

    def change(self: Handler) -> None:
        if self.headers.get("Range"):
            server.body, server.etag = second, '"2"'
        Handler.do_GET(self)

    server.RequestHandlerClass = type("Changing", (Handler,), {"do_GET": change})
    assert get(server, tmp_path).read_bytes() == second


def test_a_server_in_trouble_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429, 408]
    assert get(server, tmp_path).read_bytes() == server.body


def test_a_server_that_stays_in_trouble_is_told(server: Server, tmp_path: Path) -> None:
    server.statuses = [503] * 9
    assert refusal(server.url, tmp_path) == (
        f"{server.url}: the download broke off (503 Service Unavailable); check the address and "
        "the network and run the same command, it goes on where it is"
    )
    assert len(server.requested) == 4


@pytest.mark.parametrize("status", [408, 425, 429])
def test_a_server_that_is_busy_is_asked_again(server: Server, tmp_path: Path, status: int) -> None:
    server.statuses = [status, status]
    assert get(server, tmp_path).read_bytes() == server.body


def test_a_server_is_given_the_time_that_it_asks_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    server.statuses = [429, 503, 429, 200]
    server.retry_after = ["7", "9999", "Fri, 31 Dec 1999 23:59:59 GMT", ""]
    with contextlib.suppress(UserError):
        get(server, tmp_path)
    assert pauses[:3] == [7.0, MOST_ASKED_SECONDS, 0.0]


def test_a_server_that_refuses_is_asked_once(server: Server, tmp_path: Path) -> None:
    server.statuses = [404]
    assert refusal(f"{server.url}?signature=secret", tmp_path) == (
        f"{server.url}: the server answers 404 Not Found; check the address"
    )
    assert len(server.requested) == 1


@pytest.mark.usefixtures("server")
def test_a_server_that_does_not_answer_is_told(tmp_path: Path) -> None:
    assert refusal("http://127.0.0.1:1/x.zip", tmp_path) == (
        "http://127.0.0.1:1/x.zip: the download broke off ([Errno 111] Connection refused); check "
        "the address and the network and run the same command, it goes on where it is"
    )


def test_a_file_without_a_size_is_refused(server: Server, tmp_path: Path) -> None:
    server.length = False
    assert refusal(server.url, tmp_path) == (
        f"{server.url}: the server does not say the size of the file, so that half a file "
        "looks like a whole one; download it with your own tools and name its path"
    )


def test_two_at_once_download_once(server: Server, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        paths = set(pool.map(lambda _: get(server, tmp_path), range(2)))
    assert len(paths) == 1
    assert paths.pop().read_bytes() == server.body


def test_without_locks_it_is_gone_on_with_and_two_at_once_do_not_mix(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", missing)
    server.most, server.answers = 1_000_000, 1
    refusal(server.url, tmp_path)
    server.answers, server.most = None, 800_000
    server.requested.clear()
    with ThreadPoolExecutor(3) as pool:
        paths = set(pool.map(lambda _: get(server, tmp_path), range(3)))
    assert "bytes=1000000-" in server.requested
    assert len(paths) == 1
    assert paths.pop().read_bytes() == server.body
    assert parts(tmp_path) == []


def test_a_download_that_turns_out_damaged_is_not_kept(
    server: Server, tmp_path: Path, tiny_cinic: Path
) -> None:
    archive = tmp_path / "tiny.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tiny_cinic, "CINIC-10")
    whole = archive.read_bytes()
    server.body = whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2)
    (scratch := tmp_path / "scratch").mkdir()
    with pytest.raises(UserError, match="damaged or cut short"):
        open_source(server.url, scratch, tmp_path / "downloads", show=False)
    server.body = whole
    source = open_source(server.url, scratch, tmp_path / "downloads", show=False)
    assert sum(map(len, source.images.values())) == 90


def test_only_https_is_downloaded_from(server: Server, tmp_path: Path) -> None:
    assert checked_url("https://host/x.zip") == "https://host/x.zip"
    way_out = (
        "only https:// is downloaded from; give an https:// address, or download the file with "
        "your own tools and name its path"
    )
    for url in ("http://host/x.zip", "ftp://host/x.zip", "file:///etc/passwd"):
        assert refusal(url, tmp_path) == f"{url}: {way_out}"
    server.redirect = "http://192.0.2.1/x.zip?signature=secret"
    assert refusal(server.url, tmp_path) == f"http://192.0.2.1/x.zip: {way_out}"
    server.redirect = "file:///etc/passwd"
    assert "Redirection to url 'file:///etc/passwd' is not allowed" in refusal(server.url, tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "https://[::1/x.tar",
        "https://a..b/x.tar",
        f"https://{300 * 'x'}/x.tar",
        "https://host:port/x.tar",
        "https://host:99999/x.tar",
        "https://host/CINIC 10.tar?X-Amz-Signature=secret",
        "https://host/x\n.tar?X-Amz-Signature=secret",
        "https://me:secret@[host/x.tar",
    ],
)
def test_what_is_no_address_is_refused_in_one_line_also_behind_a_redirect(
    server: Server, tmp_path: Path, url: str
) -> None:
    for line in (refusal(url, tmp_path), redirected(server, url, tmp_path)):
        assert "secret" not in line
        assert len(line) < 300
        assert "not an address" in line
    assert "not an address; give https://HOST/PATH" in refusal(url, tmp_path)


def redirected(server: Server, url: str, folder: Path) -> str:
    # A header is one line; urllib itself quotes a space in it.
    if not url.isprintable() or " " in url:
        return "not an address"
    server.redirect = url
    return refusal(server.url, folder)


def test_https_is_not_redirected_to_plain_http_not_even_on_this_machine(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", tmp_path / "key", "-out", tmp_path / "certificate"],
        check=True, capture_output=True,
    )  # fmt: skip
    keys.write_bytes((tmp_path / "key").read_bytes() + (tmp_path / "certificate").read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys)
    trusting = ssl.create_default_context(cafile=tmp_path / "certificate")
    opener = urllib.request.build_opener(
        tlcluster.dataset.download._Redirects, urllib.request.HTTPSHandler(context=trusting)
    )
    monkeypatch.setattr(tlcluster.dataset.download, "_OPENER", opener)
    with Server() as protected:
        protected.socket = context.wrap_socket(protected.socket, server_side=True)
        protected.redirect = server.url
        threading.Thread(target=protected.serve_forever, daemon=True).start()
        url = f"https://localhost:{protected.server_port}/x.tar"
        assert refusal(url, tmp_path) == (
            f"{url}: redirects from https:// to {server.url}, which is not protected; give another "
            "address, or download the file with your own tools and name its path"
        )
        protected.shutdown()
    assert server.requested == []


def test_a_credential_in_an_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    assert refusal("https://me:secret@host/x.zip", tmp_path) == (
        "https://…@host: an address with a credential in it ends up in logs; "
        "download the file with your own tools and name its path"
    )
    assert public("https://host/x.zip?X-Amz-Signature=1#2") == "https://host/x.zip"


def test_a_disk_that_fills_up_meanwhile_is_told(
    server: Server, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = shutil.disk_usage(small_disk)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    assert refusal(server.url, small_disk) == (
        f"{small_disk}: the disk is full; free some space or name another folder with --cache"
    )
