"""Where the ImageNet weights are looked for, and that only the right file is taken.

The real file is 59 MB; but for one test, a small one with its own checksum stands in for it.
"""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tlcluster.errors import UserError
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store
from tlcluster.training import weights
from tlcluster.training.weights import FILE_NAME, SHA256, VARIABLE, find_weights

CONTENT = b"stands in for the weights"


class Site(http.server.BaseHTTPRequestHandler):
    """Serves `content`; says that it is `length` bytes long."""

    content = CONTENT
    length: int | None = len(CONTENT)
    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.requests.append(self.path)
        self.send_response(200)
        if self.length is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(self.length))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Site]]:
    """A web server in the place of Keras', with nothing asked of it yet."""

    class Fresh(Site):
        requests: ClassVar[list[str]] = []

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setattr(weights, "URL", f"http://127.0.0.1:{server.server_port}/{FILE_NAME}")
    yield Fresh
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Every place on disk, all empty; the stand-in's checksum is the right one."""
    monkeypatch.setattr(weights, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(weights, "SHARED", tmp_path / "shared")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv(VARIABLE, raising=False)
    return {
        "flag": tmp_path / "flag.h5",
        "variable": tmp_path / "variable.h5",
        "beside": tmp_path / "shared" / "weights" / FILE_NAME,
        "store": tmp_path / "store" / "weights" / FILE_NAME,
        "cache": tmp_path / "keras" / "models" / FILE_NAME,
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), create=True)


def fill(path: Path, content: bytes = CONTENT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_the_places_are_searched_in_their_order(
    places: dict[str, Path], store: Store, monkeypatch: pytest.MonkeyPatch, site: type[Site]
) -> None:
    for path in places.values():
        fill(path)
    monkeypatch.setenv(VARIABLE, str(places["variable"]))
    flag: str | None = str(places["flag"])
    found = []
    for place in ("flag", "variable", "beside", "store", "cache"):
        record, content = find_weights(flag, store)
        assert content == CONTENT
        assert record.kind == "imagenet"
        assert record.sha256 == hashlib.sha256(CONTENT).hexdigest()
        found.append(record.found)
        places[place].unlink()
        if place == "flag":
            flag = None
        if place == "variable":
            monkeypatch.delenv(VARIABLE)
    assert found == [
        str(places["flag"]),
        str(places["variable"]),
        f"../shared/weights/{FILE_NAME}",
        f"{store.url}/weights/{FILE_NAME}",
        f"Keras' cache, {FILE_NAME}",
    ]
    assert site.requests == []


def test_the_last_place_is_keras_download_which_stays_in_its_cache(
    places: dict[str, Path], store: Store, site: type[Site]
) -> None:
    for _ in range(2):
        record, content = find_weights(None, store)
        assert content == CONTENT
        assert record.found == f"Keras' cache, {FILE_NAME}"
    assert site.requests == [f"/{FILE_NAME}"]
    assert list(places["cache"].parent.iterdir()) == [places["cache"]]


def test_a_look_without_a_download_says_that_there_would_be_one(
    places: dict[str, Path], store: Store, site: type[Site]
) -> None:
    record, content = find_weights(None, store, download=False)
    assert content is None
    assert record.kind == "imagenet"
    assert record.found == f"to be downloaded, {weights.URL}"
    assert site.requests == []
    fill(places["store"])
    assert find_weights(None, store, download=False)[1] == CONTENT


def test_without_a_store_the_others_are_searched(places: dict[str, Path]) -> None:
    fill(places["cache"])
    assert find_weights(None, None)[1] == CONTENT


@pytest.mark.parametrize(
    ("content", "length"),
    [
        pytest.param(CONTENT[:10], len(CONTENT), id="cut short"),
        pytest.param(b"5\r\nstand\r\n", None, id="cut short between chunks"),
        pytest.param(b"<html>Log in</html>", 19, id="a login page"),
    ],
)
def test_a_download_that_is_not_the_file_is_an_error_and_not_kept(
    places: dict[str, Path], site: type[Site], content: bytes, length: int | None
) -> None:
    site.protocol_version = "HTTP/1.1"
    site.content, site.length = content, length
    site.close_connection = True
    with pytest.raises(UserError, match="could not be downloaded"):
        find_weights(None, None)
    assert list(places["cache"].parent.iterdir()) == []
    site.content, site.length = CONTENT, len(CONTENT)
    assert find_weights(None, None)[1] == CONTENT


def test_where_nothing_is_found_the_error_names_address_file_and_flags(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "URL", "http://127.0.0.1:9/weights.h5")  # nobody listens
    with pytest.raises(UserError) as caught:
        find_weights(None, None)
    assert str(caught.value) == (
        "VGG16's weights were not found and could not be downloaded from "
        "http://127.0.0.1:9/weights.h5; fetch the file elsewhere and name it with --weights FILE "
        "or TLCLUSTER_WEIGHTS, or train from random weights with --weights none"
    )
    assert not places["cache"].exists()


@pytest.mark.parametrize("place", ["flag", "variable", "beside", "store", "cache"])
def test_a_file_with_another_checksum_is_refused_wherever_it_lies(
    places: dict[str, Path], store: Store, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    wrong = CONTENT[:-1]
    fill(places[place], wrong)
    if place == "variable":
        monkeypatch.setenv(VARIABLE, str(places[place]))
    with pytest.raises(UserError) as caught:
        find_weights(str(places[place]) if place == "flag" else None, store)
    message = str(caught.value)
    assert hashlib.sha256(wrong).hexdigest() in message
    assert hashlib.sha256(CONTENT).hexdigest() in message
    assert "\n" not in message
    assert "--weights" in message


def test_a_named_file_that_is_missing_is_an_error_even_where_others_are(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(places["beside"])
    with pytest.raises(UserError, match=r"^--weights .*flag\.h5: No such file or directory; "):
        find_weights(str(places["flag"]), None)
    monkeypatch.setenv(VARIABLE, str(places["flag"].parent))
    with pytest.raises(UserError, match=f"^{VARIABLE} .*: Is a directory; "):
        find_weights(None, None)


def test_random_weights_are_asked_for_by_name_and_nothing_is_searched(
    places: dict[str, Path], site: type[Site]
) -> None:
    fill(places["beside"])
    record, content = find_weights("none", None)
    assert content is None
    assert record.kind == "random"
    assert record.sha256 is None
    assert site.requests == []


def test_the_checksum_is_that_of_the_file_that_keras_publishes(imagenet_weights: bytes) -> None:
    assert hashlib.sha256(imagenet_weights).hexdigest() == SHA256
    assert len(imagenet_weights) == 58_909_056
