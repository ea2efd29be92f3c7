"""Another address of an S3 server, through which answers come late, wrong or not at all."""

import contextlib
import http.client
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

HOP = {"connection", "keep-alive", "transfer-encoding"}
"""Headers that belong to one connection."""

LARGE = 4096
"""Bytes. Answers with a larger body are objects, not lists or errors."""


class Answer(NamedTuple):
    """What the server said."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


Fault = Callable[[str, Answer], Answer | None]
"""Method of a request, and its answer → the answer that arrives; None if none does."""


def unavailable(_method: str, _answer: Answer) -> Answer:
    """As a server says that has too much to do."""
    return _error(503, "SlowDown", "Please reduce your request rate.")


def expired(_method: str, _answer: Answer) -> Answer:
    """As a server says to keys whose time is over."""
    return _error(400, "ExpiredToken", "The provided token has expired.")


def truncated(method: str, answer: Answer) -> Answer:
    """Half of each object."""
    half = answer.body[: len(answer.body) // 2]
    return answer._replace(body=half) if _is_object(method, answer) else answer


def flipped(method: str, answer: Answer) -> Answer:
    """One bit in the middle of each object."""
    if not _is_object(method, answer):
        return answer
    body, middle = bytearray(answer.body), len(answer.body) // 2
    body[middle] ^= 1
    return answer._replace(body=bytes(body))


def stalled(method: str, answer: Answer) -> Answer | None:
    """Objects never come to their end."""
    return None if _is_object(method, answer) else answer


def _is_object(method: str, answer: Answer) -> bool:
    return method == "GET" and answer.status in (200, 206) and len(answer.body) > LARGE


def _error(status: int, code: str, message: str) -> Answer:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    return Answer(status, headers, body)


class FaultyS3:
    """Hands requests on to a server, and its answers back, as long as `fault` lets them."""

    def __init__(self, endpoint: str) -> None:
        parts = urllib.parse.urlsplit(endpoint)
        self.target = (str(parts.hostname), parts.port or 80)
        self.fault: Fault | None = None
        self.met = 0
        """Answers that the fault has changed or held back."""
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.on()

    @property
    def environment(self) -> Mapping[str, str]:
        """Makes a program use this address."""
        address = f"http://127.0.0.1:{self._port}"
        return {"AWS_ENDPOINT_URL": address, "AWS_ENDPOINT_URL_S3": address}

    def on(self) -> None:
        """Answer, at the same port as before."""
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def off(self) -> None:
        """Refuse connections."""
        assert self._server
        self._server.shutdown()
        self._server.server_close()
        self._server = None

    @contextlib.contextmanager
    def with_fault(self, fault: Fault) -> Iterator[None]:
        """Inside the block, answers come with this fault."""
        self.fault, self.met = fault, 0
        try:
            yield
        finally:
            self.fault = None

    def close(self) -> None:
        if self._server:
            self.off()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: FaultyS3) -> None:
        self.owner = owner
        super().__init__(address, _Handler)

    def handle_error(self, *_: object) -> None:
        """Clients that went away are part of a drill."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _hand_on(self) -> None:
        owner = self.server.owner
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        there = http.client.HTTPConnection(*owner.target, timeout=600)
        with contextlib.closing(there):
            there.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP | {"expect"}:
                    there.putheader(name, value)
            there.endheaders(body or None)
            said = there.getresponse()
            answer: Answer | None = Answer(said.status, said.getheaders(), said.read())
        fault = owner.fault
        if fault and answer:
            whole = answer
            answer = fault(self.command, whole)
            owner.met += answer != whole
            if answer is None:
                self._stall(whole, owner)
                return
        assert answer
        self._begin(answer)
        self.wfile.write(answer.body)
        if len(answer.body) < _length(answer, self.command):
            self.close_connection = True

    def _begin(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() not in HOP:
                self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in answer.headers):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()

    def _stall(self, whole: Answer, owner: FaultyS3) -> None:
        """Send the first half, and then nothing until the fault is over."""
        self._begin(whole)
        self.wfile.write(whole.body[: len(whole.body) // 2])
        self.wfile.flush()
        self.close_connection = True
        while owner.fault is not None:
            time.sleep(0.1)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _hand_on  # noqa: N815 - as the class wants


def _length(answer: Answer, method: str) -> int:
    """Bytes of body that the headers promise."""
    if method == "HEAD":
        return 0
    named = (int(value) for name, value in answer.headers if name.lower() == "content-length")
    return next(named, len(answer.body))
