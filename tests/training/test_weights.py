"""Where ImageNet weights are looked for, and that only the right files are taken.

The real files are large; small ones with checksums of their own stand in for them.
"""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tlcluster.backbones import BACKBONES, Backbone
from tlcluster.dataset import download
from tlcluster.errors import UserError
from tlcluster.records import WeightsRecord
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store
from tlcluster.training import shipped_weights, weights
from tlcluster.training.shipped_weights import hdf5
from tlcluster.training.weights import VARIABLE, Weights, find_weights, weights_name

CONTENT = b"stands in for the weights of VGG16"
OTHER = b"stands in for the weights of VGG19"
UNCHECKED = hdf5({"Conv1": shipped_weights.Convolution([[[[1.0]]]], [1.0])})  # type: ignore[arg-type]
FILE_NAME = BACKBONES["vgg16"].weights_file
OTHER_NAME = BACKBONES["vgg19"].weights_file
UNCHECKED_NAME = BACKBONES["mobilenet_v2"].weights_file


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()  # noqa: S324


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

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fresh) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        stand_ins(monkeypatch, f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(download, "WAITS_SECONDS", (0.0,))
        yield Fresh
        server.shutdown()
        thread.join()


def stand_ins(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    """Backbones whose published files are the small ones, on this server."""
    checksums = {"vgg16": md5(CONTENT), "vgg19": md5(OTHER)}
    backbones: dict[str, Backbone] = {
        name: backbone._replace(
            weights_url=f"{server}/{backbone.weights_file}",
            weights_md5=checksums.get(name, backbone.weights_md5),
        )
        for name, backbone in BACKBONES.items()
    }
    monkeypatch.setattr(weights, "BACKBONES", backbones)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Every place on disk, all empty."""
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


def fill(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def vgg16(*named: str | Path, store: Store | None = None, **options: bool) -> Weights:
    """The weights that a run of VGG16 alone has."""
    return find_weights(["vgg16"], [str(value) for value in named], store, **options)["vgg16"]


def refusal(bases: list[str], *named: str | Path, **options: bool) -> str:
    with pytest.raises(UserError) as caught:
        find_weights(bases, [str(value) for value in named], **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# The usual places


def test_the_places_are_searched_in_their_order(
    places: dict[str, Path], store: Store, monkeypatch: pytest.MonkeyPatch, site: type[Site]
) -> None:
    for path in places.values():
        fill(path)
    monkeypatch.setenv(VARIABLE, str(places["variable"]))
    flags = [places["flag"]]
    found = []
    for place in ("flag", "variable", "beside", "store", "cache"):
        record, content, notice = vgg16(*flags, store=store)
        assert content == CONTENT
        assert record.kind == "imagenet"
        assert record.sha256 == hashlib.sha256(CONTENT).hexdigest()
        assert notice is None
        found.append(record.found)
        places[place].unlink()
        flags = []
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


def test_keras_download_stays_in_its_cache(
    places: dict[str, Path], store: Store, site: type[Site]
) -> None:
    for _ in range(2):
        record, content, _ = vgg16(store=store)
        assert content == CONTENT
        assert record.found == f"Keras' cache, {FILE_NAME}"
    assert set(site.requests) == {f"/{FILE_NAME}"}
    asked = len(site.requests)
    vgg16(store=store)
    assert len(site.requests) == asked
    assert list(places["cache"].parent.iterdir()) == [places["cache"]]


def test_a_download_is_used_also_if_the_cache_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(fill(tmp_path / "a-file")))
    assert vgg16().content == CONTENT


def test_a_look_without_a_download_says_that_there_would_be_one(
    places: dict[str, Path], store: Store, site: type[Site]
) -> None:
    record, content, _ = vgg16(store=store, download=False)
    assert content is None
    assert record.kind == "imagenet"
    assert record.found == f"to be downloaded, {weights.BACKBONES['vgg16'].weights_url}"
    assert site.requests == []
    fill(places["store"])
    assert vgg16(store=store, download=False).content == CONTENT


@pytest.mark.parametrize("place", ["flag", "variable", "beside", "store", "cache"])
def test_a_file_with_another_checksum_is_refused_wherever_it_lies(
    places: dict[str, Path], store: Store, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    wrong = CONTENT[:-1]
    fill(places[place], wrong)
    if place == "variable":
        monkeypatch.setenv(VARIABLE, str(places[place]))
    with pytest.raises(UserError) as caught:
        vgg16(*([places[place]] if place == "flag" else []), store=store)
    message = str(caught.value)
    assert md5(wrong) in message
    assert md5(CONTENT) in message
    assert "\n" not in message
    assert "--weights" in message


def test_the_file_as_todays_keras_saves_it_is_taken_too(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = b"the same numbers in another file"
    sha256 = hashlib.sha256(saved).hexdigest()
    monkeypatch.setattr(weights, "RESAVED_SHA256", {"vgg16": sha256})
    fill(places["beside"], saved)
    assert vgg16().record.sha256 == sha256
    assert vgg16(fill(places["flag"], saved)).content == saved


def test_the_file_beside_the_checkout_is_the_one_that_this_project_knows(
    published_weights: bytes,
) -> None:
    known = {weights.RESAVED_SHA256["vgg16"]}
    published = md5(published_weights) == BACKBONES["vgg16"].weights_md5
    assert published or hashlib.sha256(published_weights).hexdigest() in known


# Named weights


def test_a_file_is_for_the_base_that_it_belongs_to(tmp_path: Path, places: dict[str, Path]) -> None:
    fill(places["beside"])
    named = fill(tmp_path / "any name", OTHER)
    found = find_weights(["vgg16", "vgg19"], [str(named)])
    assert found["vgg16"].record.found == f"../shared/weights/{FILE_NAME}"
    assert found["vgg19"].record.found == str(named)
    assert (found["vgg16"].content, found["vgg19"].content) == (CONTENT, OTHER)


def test_several_files_serve_several_bases_in_any_order(tmp_path: Path) -> None:
    files = [str(fill(tmp_path / "a", OTHER)), str(fill(tmp_path / "b", CONTENT))]
    for named in (files, files[::-1]):
        found = find_weights(["vgg16", "vgg19"], named)
        assert [one.content for one in found.values()] == [CONTENT, OTHER]


def test_a_folder_is_searched_by_file_name_and_what_it_lacks_in_the_usual_places(
    tmp_path: Path, places: dict[str, Path]
) -> None:
    folder = fill(tmp_path / "folder" / OTHER_NAME, OTHER).parent
    fill(places["beside"])
    found = find_weights(["vgg16", "vgg19"], [str(folder)])
    assert found["vgg16"].record.found == f"../shared/weights/{FILE_NAME}"
    assert found["vgg19"].record.found == str(folder / OTHER_NAME)


def test_a_damaged_file_in_a_named_folder_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "folder" / FILE_NAME, OTHER).parent
    assert refusal(["vgg16"], folder).startswith(f"weights {folder}/{FILE_NAME}: md5 is ")


def test_a_file_without_a_published_checksum_is_known_by_its_name_and_the_record_says_so(
    tmp_path: Path,
) -> None:
    named = fill(tmp_path / UNCHECKED_NAME, UNCHECKED)
    (found,) = find_weights(["mobilenet_v2"], [str(named)]).values()
    assert found.content == UNCHECKED
    assert found.record.found == (
        f"{named}; Keras publishes no checksum, so it is verified by loading it"
    )
    fill(named, b"no HDF5 file")
    assert "not a weights file of Keras" in refusal(["mobilenet_v2"], named)


def test_a_value_that_no_base_of_the_run_can_use_is_refused(tmp_path: Path) -> None:
    file = fill(tmp_path / "w.h5", OTHER)
    assert refusal(["vgg16"], file) == (
        f"--weights {file}: has no weights for this run's base (VGG16); give {FILE_NAME} or a "
        "folder that holds it, or leave the flag out"
    )
    assert refusal(["vgg16"], tmp_path).startswith(f"--weights {tmp_path}: has no weights for")
    assert refusal(["resnet50"], "shipped").startswith("--weights shipped: has no weights for")


def test_the_variable_may_name_the_file_of_a_base_that_the_run_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: dict[str, Path]
) -> None:
    """A container image sets it for every run."""
    monkeypatch.setenv(VARIABLE, str(fill(tmp_path / "w.h5", OTHER)))
    fill(places["beside"])
    assert vgg16().record.found == f"../shared/weights/{FILE_NAME}"


def test_a_file_that_is_no_bases_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    file = fill(tmp_path / "w.h5", b"something else")
    message = refusal(["vgg16", "mobilenet_v2"], file)
    assert md5(b"something else") in message
    assert f"{md5(CONTENT)} (VGG16) or the name {UNCHECKED_NAME}" in message


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("flag.h5", "no such file or directory"),
        ("/dev/zero", "is a pipe, socket or device"),
        ("x" * 5000, "file name too long"),
    ],
)
def test_a_named_file_that_cannot_be_read_is_an_error_even_if_others_can(
    places: dict[str, Path], value: str, reason: str
) -> None:
    fill(places["beside"])
    message = refusal(["vgg16"], value)
    assert message.startswith("--weights ")
    assert f": {reason}; " in message
    assert len(message) < 600


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "MOST_BYTES", 10)
    assert "has more than" in refusal(["vgg16"], fill(tmp_path / "w.h5"))


def test_the_variable_is_named_in_its_own_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none.h5"))
    assert refusal(["vgg16"]).startswith(f"{VARIABLE} {tmp_path}/none.h5: no such file")
    assert vgg16("none").content is None  # the flag wins, and the variable is not read


def test_random_weights_are_asked_for_by_name_and_nothing_is_searched(
    places: dict[str, Path], site: type[Site]
) -> None:
    fill(places["beside"])
    record, content, _ = vgg16("none")
    assert content is None
    assert record.kind == "random"
    assert record.sha256 is None
    assert site.requests == []


def test_none_with_a_file_is_for_the_other_bases(tmp_path: Path) -> None:
    values = [str(fill(tmp_path / "w.h5", OTHER)), "none"]
    for named in (values, values[::-1]):
        found = find_weights(["vgg16", "vgg19"], named)
        assert [one.record.kind for one in found.values()] == ["random", "imagenet"]


def test_random_weights_have_the_name_in_feature_keys_that_they_had() -> None:
    random = WeightsRecord(kind="random", sha256=None, found="")
    assert weights_name("vgg16", random, 524) == "random-524"
    assert weights_name("vgg19", random, 524) == "random-vgg19-524"
    file = random.model_copy(update={"sha256": "ab"})
    assert weights_name("vgg16", file, 524) == "ab"


# The 8-bit copy


def test_the_8_bit_copy_comes_last_and_is_announced(site: type[Site]) -> None:
    site.content, site.length = b"<html>Log in</html>", 19
    record, content, notice = vgg16()
    assert record == WeightsRecord(
        kind="imagenet-8bit",
        sha256=shipped_weights.SHA256,
        found="the 8-bit copy that tlcluster ships",
    )
    assert content == shipped_weights.shipped_weights()
    assert notice == (
        "weights: the 8-bit copy of VGG16's ImageNet weights that tlcluster ships; the published "
        f"ones could not be downloaded from {weights.BACKBONES['vgg16'].weights_url} (what was "
        "downloaded is not the file that Keras publishes). Use the published file with --weights "
        "FILE."
    )


def test_the_8_bit_copy_is_taken_by_name_before_all_others(
    places: dict[str, Path], site: type[Site]
) -> None:
    fill(places["beside"])
    record, _, notice = vgg16("shipped")
    assert record.kind == "imagenet-8bit"
    assert notice is not None
    assert site.requests == []


@pytest.mark.parametrize(
    ("content", "length"),
    [
        pytest.param(CONTENT[:10], len(CONTENT), id="cut short"),
        pytest.param(b"5\r\nstand\r\n", None, id="cut short between chunks"),
        pytest.param(b"<html>Log in</html>", 19, id="a login page"),
        pytest.param(CONTENT[::-1], len(CONTENT), id="other bytes"),
    ],
)
def test_a_damaged_download_is_an_error_without_the_copy_and_is_not_kept(
    places: dict[str, Path], site: type[Site], content: bytes, length: int | None
) -> None:
    site.protocol_version = "HTTP/1.1"
    site.content, site.length = content, length
    site.close_connection = True
    assert "could not be downloaded" in refusal(["vgg16"], fall_back=False)
    assert not places["cache"].exists()
    site.content, site.length = CONTENT, len(CONTENT)
    assert vgg16(fall_back=False).content == CONTENT


def test_if_nothing_is_found_the_error_names_address_reason_file_and_flags(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins(monkeypatch, "http://127.0.0.1:9")  # nobody listens
    url = f"http://127.0.0.1:9/{FILE_NAME}"
    assert refusal(["vgg16"], fall_back=False) == (
        f"VGG16's weights were not found and could not be downloaded from {url} ([Errno 111] "
        "Connection refused); fetch the file elsewhere and name it with --weights FILE or "
        "TLCLUSTER_WEIGHTS, or take the 8-bit copy that tlcluster ships with --weights shipped"
    )
    assert refusal(["vgg19"]).endswith("or train from random weights with --weights none")
    assert not places["cache"].exists()
