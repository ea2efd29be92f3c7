"""S3 that is away, busy or broken for a while: nothing is lost, and what waits says why."""

import contextlib
import hashlib
import http.client
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import botocore.config
import pytest

import tlcluster.storage.patient
from tlcluster.errors import StoreUnavailable, UserError
from tlcluster.storage import s3 as s3_module
from tlcluster.storage.cache import NodeCache
from tlcluster.storage.embedded import EmbeddedStore, embedded_store
from tlcluster.storage.open import open_store
from tlcluster.storage.patient import patient
from tlcluster.storage.protocol import Store
from tlcluster.storage.s3 import S3Store

QUICK = botocore.config.Config(
    retries={"mode": "standard", "total_max_attempts": 1}, connect_timeout=5, read_timeout=1
)
BODY = bytes(range(256)) * 4096


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tlcluster.storage.patient, "FIRST_PAUSE_SECONDS", 0.05)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def set_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)


class Waits:
    """Notes why a patient store waits, and mends the trouble before a certain pause."""

    def __init__(self, mend: Callable[[], None], before: int = 1) -> None:
        self.mend = mend
        self.before = before
        self.reasons: list[str] = []

    def __call__(self, _: float, why: str) -> None:
        self.reasons.append(why)
        if len(self.reasons) == self.before:
            self.mend()


class Proxy(http.server.ThreadingHTTPServer):
    """Between boto3 and a real server: passes everything on, as long as it has no trouble."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.upstream = upstream
        self.trouble = ""
        self.over = threading.Event()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def mend(self) -> None:
        self.trouble = ""
        self.over.set()

    def handle_error(self, *_: object) -> None: ...


class Passing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def pass_on(self) -> None:
        trouble = self.server.trouble
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if trouble in BUSY:
            self.answer(*BUSY[trouble], len(BUSY[trouble][1]))
            return
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
        # As it came, since the signature covers it.
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("expect", "connection"):
                upstream.putheader(name, value)
        upstream.endheaders(sent)
        answer = upstream.getresponse()
        body = answer.read()
        length = int(answer.getheader("Content-Length") or len(body))
        if trouble in ("cut", "stalled", "closed"):
            body = body[: len(body) // 2] if trouble != "closed" else b""
            if trouble == "closed":
                self.close_connection = True
                return
        self.answer(answer.status, body, length, answer.headers.items())
        if trouble == "stalled":
            self.server.over.wait(60)
        self.close_connection = bool(trouble)

    def answer(self, status: int, body: bytes, length: int, headers: object = ()) -> None:
        self.send_response_only(status)
        for name, value in headers:  # type: ignore[attr-defined]
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.wfile.flush()

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = pass_on  # noqa: N815

    def log_message(self, *_: object) -> None: ...


BUSY = {
    "slow down": (503, b"<Error><Code>SlowDown</Code><Message>m</Message></Error>"),
    "internal": (500, b"<Error><Code>InternalError</Code><Message>m</Message></Error>"),
    "too many": (429, b""),
    "bad gateway": (502, b"<html>bad<br>gateway</html>"),
    "slow client": (400, b"<Error><Code>RequestTimeout</Code><Message>m</Message></Error>"),
}


@pytest.fixture
def proxy(s3: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy(s3.endpoint.removeprefix("http://")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        set_endpoint(monkeypatch, server.endpoint)
        yield server
        server.mend()
        server.shutdown()


@pytest.fixture
def store(proxy: Proxy, s3_url: str, tmp_path: Path) -> Store:  # noqa: ARG001  # the environment
    """A store behind the proxy that tries everything once, with some objects in it."""
    opened = S3Store("tlcluster", s3_url.rpartition("/")[2], NodeCache(tmp_path / "cache"), QUICK)
    opened.put("here", BODY)
    return opened


OPERATIONS: dict[str, Callable[[Store], object]] = {
    "list": lambda store: [item.key for item in store.list()] == ["here"],
    "get": lambda store: store.get("here") == BODY,
    "fetch": lambda store: (
        store.fetch("here", sha256=sha256(BODY), size=len(BODY)).read_bytes() == BODY
    ),
    "put": lambda store: store.put("new", BODY) or store.get("new") == BODY,
    "put_if_absent": lambda store: (
        store.put_if_absent("new", BODY) in (True, False) and store.get("new") == BODY
    ),
    "delete": lambda store: store.delete("here") or store.list() == [],
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_gets_through_when_the_trouble_is_over(
    proxy: Proxy, store: Store, operation: str
) -> None:
    troubles = [*BUSY, "closed", ""]

    def next_trouble(*_: object) -> None:
        if troubles:
            proxy.trouble = troubles.pop(0)

    next_trouble()
    for code in ("SlowDown", "InternalError", "429", "502", "RequestTimeout|400", "Connection"):
        with pytest.raises(StoreUnavailable, match=code):
            OPERATIONS[operation](store)
        next_trouble()
    troubles = [*BUSY, "closed", ""]
    next_trouble()
    assert OPERATIONS[operation](patient(store, 60, on_wait=next_trouble))
    assert troubles == []


@pytest.mark.parametrize("trouble", ["cut", "stalled"])
@pytest.mark.parametrize("operation", ["list", "get", "fetch"])
def test_half_an_answer_is_never_taken_for_a_whole_one(
    proxy: Proxy, store: Store, trouble: str, operation: str
) -> None:
    waits = Waits(proxy.mend)
    proxy.trouble = trouble
    assert OPERATIONS[operation](patient(store, 60, on_wait=waits))
    assert waits.reasons[1:] == [""]


def test_a_server_that_is_stopped_and_started_again_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is another process then, with other keys, which are read from the file again."""
    keys = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))  # undone last of all
    set_endpoint(monkeypatch, "")
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(Proxy(""))
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        stack.callback(proxy.shutdown)

        def started() -> contextlib.ExitStack:
            running = contextlib.ExitStack()
            server = running.enter_context(embedded_store(tmp_path / "kept"))
            shutil.copyfile(server.credentials_file, keys)
            proxy.upstream = server.endpoint.removeprefix("http://")
            set_endpoint(monkeypatch, proxy.endpoint)
            monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
            return running

        first = started()
        store = S3Store("tlcluster", "a", NodeCache(tmp_path / "cache"), QUICK)
        store.put("here", BODY)
        first.close()
        with pytest.raises(StoreUnavailable):
            store.get("here")
        waits = Waits(lambda: stack.push(started()), before=2)
        waiting = patient(store, 120, on_wait=waits)
        assert waiting.get("here") == BODY
        waiting.put("after", b"1")
        assert [item.key for item in waiting.list()] == ["after", "here"]


def test_a_start_during_an_outage_is_refused_unless_the_caller_can_wait(
    proxy: Proxy, s3_url: str
) -> None:
    proxy.trouble = "slow down"
    with pytest.raises(UserError, match="SlowDown; try again later"):
        open_store(s3_url)
    store = open_store(s3_url, check=False)
    proxy.mend()
    store.put("a", b"1")


class Simulated(http.server.BaseHTTPRequestHandler):
    """A server that misbehaves as S3 does and SeaweedFS does not, once."""

    protocol_version = "HTTP/1.1"
    body = b"whole body"
    listing = b"<ListBucketResult></ListBucketResult>"
    tokens: list[str]
    expired: set[str]
    cuts: list[str]
    objects: dict[str, bytes]
    condition: tuple[int, str] | None
    """What a PUT with a condition is answered."""

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.condition and self.headers.get("If-None-Match"):
            status, code = self.condition
            self.answer(status, f"<Error><Code>{code}</Code></Error>".encode() if code else b"")
        else:
            self.objects[self.path.partition("?")[0]] = body
            self.answer(200, b"")

    def do_GET(self) -> None:
        token = self.headers.get("X-Amz-Security-Token", "")
        self.tokens.append(token)
        if token in self.expired:
            self.answer(400, b"<Error><Code>ExpiredToken</Code><Message>m</Message></Error>")
        elif "list-type" in self.path:
            self.answer(200, self.listing)
        elif self.condition and self.path not in self.objects:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif self.cuts:
            self.cuts.pop()
            self.answer(200, self.body, cut=4)
        else:
            self.answer(200, self.body)

    do_HEAD = do_GET  # noqa: N815

    def answer(self, status: int, body: bytes, cut: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        self.close_connection = cut is not None

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def simulated(
    s3: EmbeddedStore,  # noqa: ARG001  # its profile
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[type[Simulated]]:
    """The environment points at a simulated server, with keys in a file."""
    monkeypatch.setattr(Simulated, "tokens", [], raising=False)
    monkeypatch.setattr(Simulated, "expired", set(), raising=False)
    monkeypatch.setattr(Simulated, "cuts", [], raising=False)
    monkeypatch.setattr(Simulated, "objects", {}, raising=False)
    monkeypatch.setattr(Simulated, "condition", None, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Simulated) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        set_endpoint(monkeypatch, f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        write_token(tmp_path, "first")
        yield Simulated
        server.shutdown()


def write_token(folder: Path, token: str) -> None:
    (folder / "credentials").write_text(
        "[tlcluster]\naws_access_key_id = k\naws_secret_access_key = s\n"
        f"aws_session_token = {token}\n"
    )


def test_a_token_that_expired_is_read_again_from_a_simulated_server(
    simulated: type[Simulated], tmp_path: Path
) -> None:
    store = open_store("s3://bucket")
    simulated.expired.add("first")
    write_token(tmp_path, "second")
    assert store.get("a") == b"whole body"
    assert list(dict.fromkeys(simulated.tokens)) == ["first", "second"]


def test_a_token_that_stays_expired_is_waited_for_except_at_the_start(
    simulated: type[Simulated], tmp_path: Path
) -> None:
    store = open_store("s3://bucket")
    simulated.expired.add("first")
    with pytest.raises(UserError, match=r"refuses the credentials \(ExpiredToken\)"):
        open_store("s3://bucket")
    with pytest.raises(StoreUnavailable, match=r"refuses the credentials \(ExpiredToken\)"):
        store.get("a")
    waits = Waits(lambda: write_token(tmp_path, "second"))
    assert patient(store, 60, on_wait=waits).get("a") == b"whole body"
    assert "refuses the credentials (ExpiredToken); they have expired" in waits.reasons[0]


@pytest.mark.parametrize("content", ["", "[tlcluster]\naws_access_key_id = k\n", "[half"])
def test_credentials_that_are_being_written_when_others_expire_are_waited_for(
    simulated: type[Simulated], tmp_path: Path, content: str
) -> None:
    store = open_store("s3://bucket")
    simulated.expired.add("first")
    (tmp_path / "credentials").write_text(content)
    waits = Waits(lambda: write_token(tmp_path, "second"))
    assert patient(store, 60, on_wait=waits).get("a") == b"whole body"
    assert "no others are found now" in waits.reasons[0]


def test_a_body_that_a_simulated_server_cuts_short_is_read_again(
    simulated: type[Simulated], tmp_path: Path
) -> None:
    store = open_store("s3://bucket", NodeCache(tmp_path / "cache"))
    simulated.cuts.append("get")
    assert store.get("a") == b"whole body"
    simulated.cuts.append("fetch")
    path = store.fetch("a", sha256=sha256(b"whole body"), size=10)
    assert path.read_bytes() == b"whole body"
    assert simulated.cuts == []


def test_a_download_is_one_request_to_a_simulated_server(
    simulated: type[Simulated], tmp_path: Path
) -> None:
    store = open_store("s3://bucket", NodeCache(tmp_path / "cache"))
    before = len(simulated.tokens)
    store.fetch("a", sha256=sha256(b"whole body"), size=10)
    assert len(simulated.tokens) == before + 1


@pytest.mark.parametrize(
    "condition",
    [(501, "NotImplemented"), (400, "InvalidArgument"), (405, "MethodNotAllowed"),
     (400, "InvalidRequest"), (501, "")],
)  # fmt: skip
def test_without_conditional_put_a_simulated_server_is_asked_first(
    simulated: type[Simulated],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    condition: tuple[int, str],
) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    simulated.condition = condition
    store = open_store("s3://bucket")
    assert store.put_if_absent("a", b"first")
    assert not store.put_if_absent("a", b"second")
    assert store.put_if_absent("b", b"other")
    assert simulated.objects == {"/bucket/a": b"first", "/bucket/b": b"other"}
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "s3://bucket: this service has no conditional PUT"
    ]


@pytest.mark.usefixtures("simulated")
def test_a_listing_of_a_simulated_server_that_never_ends_or_has_no_numbers_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = open_store("s3://bucket")
    item = "<Contents><Key>a</Key><Size>{}</Size></Contents>"
    monkeypatch.setattr(
        Simulated, "listing", f"<ListBucketResult>{item.format('x')}</ListBucketResult>".encode()
    )
    with pytest.raises(StoreUnavailable, match="was damaged or broke off"):
        store.list()
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>"

    class Endless:
        """Another token each time, or botocore would notice."""

        def __init__(self) -> None:
            self.pages = 0

        def __get__(self, *_: object) -> bytes:
            self.pages += 1
            content = item.format(1) * 10 + more.format(self.pages)
            return f"<ListBucketResult>{content}</ListBucketResult>".encode()

    monkeypatch.setattr(s3_module, "_MOST_LISTED", 35)
    monkeypatch.setattr(Simulated, "listing", Endless())
    with pytest.raises(UserError, match="more than 35 objects"):
        store.list()
