"""A weights file from the web: a quick refusal without a route, patience with a busy server."""

import http.server
import socket
import threading
from collections.abc import Iterator
from typing import ClassVar

import pytest

from tlcluster.training import fetch as module
from tlcluster.training.fetch import NotFetched, fetch

CONTENT = b"stands in for the weights"


class Site(http.server.BaseHTTPRequestHandler):
    """Serves `content` after one answer for each of `busy`."""

    content = CONTENT
    busy: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        self.send_response(self.busy.pop(0) if self.busy else 200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[tuple[str, type[Site]]]:
    """The address of a file on a web server, and what the server does."""

    class Fresh(Site):
        busy: ClassVar[list[int]] = []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fresh) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/weights.h5", Fresh
        server.shutdown()
        thread.join()


def test_the_file_is_fetched(site: tuple[str, type[Site]]) -> None:
    assert fetch(site[0]) == CONTENT


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again(site: tuple[str, type[Site]], status: int) -> None:
    url, behaviour = site
    behaviour.busy.append(status)
    assert fetch(url) == CONTENT


def test_a_server_that_refuses_is_named(site: tuple[str, type[Site]]) -> None:
    url, behaviour = site
    behaviour.busy.append(404)
    with pytest.raises(NotFetched, match="404"):
        fetch(url)


def test_a_port_where_nobody_listens_is_an_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NotFetched, match="Connection refused"):
        fetch(f"http://127.0.0.1:{port}/weights.h5")


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(NotFetched, match=r"timed out|no answer within 0\.2 seconds"):
            fetch(f"http://127.0.0.1:{port}/weights.h5")


def test_a_name_whose_resolution_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver whose packets vanish takes no timeout."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.2)
    over = threading.Event()

    def resolve(*_: object, **__: object) -> None:
        over.wait()
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(NotFetched, match=r"no answer within 0\.2 seconds"):
        fetch("http://weights.invalid/weights.h5")
    over.set()
