"""Objects in a directory and in a real S3 bucket: one set of promises for both."""

import contextlib
import errno
import hashlib
import os
import pickle
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tlcluster.errors import StoreUnavailable, UserError
from tlcluster.storage import open as opening
from tlcluster.storage.cache import NodeCache
from tlcluster.storage.directory import CLAIM_SECONDS
from tlcluster.storage.embedded import EmbeddedStore
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import CorruptObject, ObjectMissing, Store

UNSAFE_KEYS = [
    "",
    "/etc/passwd",
    "../secret",
    "a/../../secret",
    "a/..",
    "./a",
    "a//b",
    "a/",
    "a\\b",
    "a\0b",
    "a\nb",
    "a\x7fb",
    ".tlcluster-1234",
]


@pytest.fixture(params=["directory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return str(request.getfixturevalue("s3_url"))
    return str(tmp_path / "store")


@pytest.fixture
def store(url: str, tmp_path: Path) -> Store:
    return open_store(url, NodeCache(tmp_path / "cache"), create=True)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def message(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_was_put_comes_back_whole(store: Store, tmp_path: Path) -> None:
    large = os.urandom(2**20) * 20
    (tmp_path / "file").write_bytes(large)
    for key, data in {"a": b"1", "deep/er/b": b"", "c": large}.items():
        store.put(key, data)
        assert store.get(key) == data
    store.put("from-file", tmp_path / "file")
    assert store.get("from-file") == large


def test_weights_of_60_mb_go_to_s3_in_one_request(s3_url: str) -> None:
    """Some stores take no multipart uploads."""
    store = open_store(s3_url)
    asked: list[str] = []
    store._client.meta.events.register(  # type: ignore[attr-defined]
        "before-call.s3", lambda model, **_: asked.append(model.name)
    )
    store.put("weights", bytes(60_000_000))
    assert asked == ["PutObject"]


def test_a_put_replaces(store: Store) -> None:
    store.put("a/b", b"first")
    store.put("a/b", b"2nd")
    assert store.get("a/b") == b"2nd"


def test_a_listing_has_every_object_below_a_prefix_in_order_of_keys(store: Store) -> None:
    assert store.list() == []
    for key in ["b/2", "b/10", "a", "b-c/1", "bb"]:
        store.put(key, key.encode())
    assert store.list() == [("a", 1), ("b-c/1", 5), ("b/10", 4), ("b/2", 3), ("bb", 2)]
    assert store.list("b/") == [("b/10", 4), ("b/2", 3)]
    assert store.list("b/1") == [("b/10", 4)]
    assert store.list("b-c") == [("b-c/1", 5)]
    assert store.list("nothing/here/") == []


def test_a_listing_is_longer_than_a_page_of_s3(store: Store) -> None:
    keys = [f"{number:04d}" for number in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b""), keys))
    assert [item.key for item in store.list()] == keys


def test_a_missing_object_is_named(store: Store) -> None:
    store.put("a/b", b"")
    for key in ["no/such", "a", "a/b/c"]:
        with pytest.raises(ObjectMissing, match=re.escape(f"{key}: no such object in {store.url}")):
            store.get(key)
    with pytest.raises(ObjectMissing) as caught:
        store.fetch("no/such", sha256=sha256(b""), size=0)
    assert caught.value.key == "no/such"


def test_put_if_absent_never_replaces(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from file")
    assert store.put_if_absent("index.json", tmp_path / "file")
    assert not store.put_if_absent("index.json", b"second")
    assert store.get("index.json") == b"from file"
    assert [item.key for item in store.list()] == ["index.json"]


def test_of_many_who_put_if_absent_at_once_exactly_one_succeeds(url: str, store: Store) -> None:
    stores = [store, *(open_store(url) for _ in range(7))]
    for attempt in range(5):
        key = f"race/{attempt}"
        barrier = threading.Barrier(len(stores))

        def put(number: int, key: str = key, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return stores[number].put_if_absent(key, str(number).encode())

        with ThreadPoolExecutor(len(stores)) as pool:
            won = list(pool.map(put, range(len(stores))))
        assert sum(won) == 1
        assert store.get(key) == str(won.index(True)).encode()


def test_a_reader_sees_an_object_as_a_whole_while_it_is_replaced(store: Store) -> None:
    contents = [bytes([number]) * 300_000 for number in range(2)]
    store.put("a", contents[0])
    done = threading.Event()

    def replace() -> None:
        for number in range(30):
            store.put("a", contents[number % 2])
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(replace)
        while not done.is_set() and not writer.done():
            assert store.get("a") in contents
        writer.result()


def test_a_delete_is_final_and_may_be_repeated(store: Store) -> None:
    store.put("a/b", b"1")
    store.put("a/c", b"2")
    store.delete("a/b")
    store.delete("a/b")
    assert store.list() == [("a/c", 1)]


@pytest.mark.parametrize("key", UNSAFE_KEYS)
def test_a_key_that_leaves_the_store_is_refused_everywhere(store: Store, key: str) -> None:
    refused = f"key {key!r}: not a safe key; a key is a relative path like `train/0001.npy`"
    for call in (
        lambda: store.get(key),
        lambda: store.put(key, b""),
        lambda: store.put_if_absent(key, b""),
        lambda: store.delete(key),
        lambda: store.fetch(key, sha256=sha256(b""), size=0),
    ):
        assert message(call) == refused
    if key.removesuffix("/") and key.removesuffix("/") != "a":
        assert message(lambda: store.list(key)) == refused
    assert store.list() == []


def test_a_fetched_object_is_a_local_file_with_its_content(store: Store) -> None:
    data = os.urandom(100_000)
    store.put("train/0.npy", data)
    for _ in range(2):
        path = store.fetch("train/0.npy", sha256=sha256(data), size=len(data))
        assert path.read_bytes() == data


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer"])
def test_a_damaged_object_is_told_with_key_expected_and_found(store: Store, damage: str) -> None:
    data = b"x" * 100
    found = {"flipped": b"y" + data[1:], "cut": data[:50], "longer": data + b"z"}[damage]
    store.put("train/0.npy", found)
    with pytest.raises(CorruptObject) as caught:
        store.fetch("train/0.npy", sha256=sha256(data), size=len(data))
    assert caught.value.key == "train/0.npy"
    assert str(caught.value) == (
        f"train/0.npy: the object is damaged: expected sha256 {sha256(data)} (100 bytes), "
        f"found sha256 {sha256(found)} ({len(found)} bytes); "
        "delete it and ingest the same source again"
    )


def test_a_directory_is_verified_in_place(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("a", b"1")
    assert store.fetch("a", sha256=sha256(b"1"), size=1) == tmp_path / "a"


def test_errors_survive_the_way_between_processes() -> None:
    for error in (CorruptObject("k", "e", "f"), ObjectMissing("k", "s")):
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert (type(copy), vars(copy), str(copy)) == (type(error), vars(error), str(error))


def test_an_address_opens_the_same_store_anywhere(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a", b"1")
    monkeypatch.chdir(tmp_path)
    assert open_store(store.url).url == store.url
    assert open_store(store.url).get("a") == b"1"


def test_a_directory_may_be_given_in_any_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a b").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in ["a b", "./a b", "~/a b", f"{tmp_path}/a b/", f"file://{tmp_path}/a%20b"]:
        assert open_store(url).url == f"{tmp_path}/a b"


def test_temporary_files_of_a_directory_are_no_objects(tmp_path: Path) -> None:
    (tmp_path / ".tlcluster-0123456789abcdef").write_bytes(b"half")
    assert open_store(str(tmp_path)).list() == []


def test_a_full_disk_leaves_the_old_object_and_nothing_else(small_disk: Path) -> None:
    store = open_store(str(small_disk))
    store.put("a", b"old")
    for put in (store.put, store.put_if_absent):
        assert message(lambda put=put: put("a", bytes(2 * 2**20))) == (  # type: ignore[misc]
            f"{small_disk}/a: the disk is full; free some space or name another store"
        )
    assert store.get("a") == b"old"
    assert [path.name for path in small_disk.iterdir()] == ["a"]


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EHOSTDOWN])
def test_a_network_file_system_that_does_not_answer_is_a_matter_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = open_store(str(tmp_path))
    store.put("a", b"1")

    def away(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    for name in ("open", "read_bytes", "mkdir", "stat", "unlink", "hardlink_to"):
        monkeypatch.setattr(Path, name, away)
    for call in (
        store.list,
        lambda: store.get("a"),
        lambda: store.put("a", b"2"),
        lambda: store.put_if_absent("a", b"2"),
        lambda: store.delete("a"),
        lambda: store.fetch("a", sha256=sha256(b"1"), size=1),
    ):
        with pytest.raises(StoreUnavailable, match=re.escape(str(tmp_path))):
            call()


def test_a_name_that_a_network_file_system_has_forgotten_is_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of NFS remembers that a file was missing until its folder is opened again."""
    store = open_store(str(tmp_path))
    store.put("a/b/c", b"1")
    opened: list[str] = []
    real_open, real_exists = os.open, Path.exists

    def open_(path: Path, flags: int, *more: int) -> int:
        if flags & os.O_DIRECTORY:
            opened.append(str(path))
        elif len(opened) < 3:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return real_open(path, flags, *more)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(Path, "exists", lambda path: len(opened) == 3 and real_exists(path))
    assert store.get("a/b/c") == b"1"
    assert opened == [str(tmp_path), f"{tmp_path}/a", f"{tmp_path}/a/b"]


def test_a_link_whose_answer_was_lost_is_known_as_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS sends such a request again, and the server says that the name is taken."""
    store = open_store(str(tmp_path))
    real = Path.hardlink_to

    def twice(path: Path, target: Path) -> None:
        with contextlib.suppress(FileExistsError):
            real(path, target)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    monkeypatch.setattr(Path, "hardlink_to", twice)
    assert store.put_if_absent("a", b"ours")
    assert not store.put_if_absent("a", b"second")
    assert store.get("a") == b"ours"


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "huge"])
def test_what_is_no_plain_file_is_told_and_never_waited_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(2**40)
    store = open_store(str(tmp_path))
    expected = {
        "pipe": f"{path}: is a pipe, socket or device; name a store that this account can use",
        "device": f"{path}: is a pipe, socket or device; name a store that this account can use",
        "folder": f"index.json: no such object in {tmp_path}",
        "huge": f"{path}: has more than 8,589,934,592 bytes; this is no object that tlcluster "
        "wrote: restore it, or name another place",
    }
    assert message(lambda: store.get("index.json")) == expected[kind]
    with pytest.raises((UserError, CorruptObject, ObjectMissing)):
        store.fetch("index.json", sha256=sha256(b"1"), size=1)


def test_an_object_is_read_up_to_a_limit(store: Store) -> None:
    store.put("a", bytes(1000))
    assert len(store.get("a", 1000)) == 1000
    assert message(lambda: store.get("a", 999)) == (
        f"{store.url}/a: has more than 999 bytes; this is no object that tlcluster wrote: restore "
        "it, or name another place"
    )


def test_an_address_that_cannot_be_used_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    expected = {
        str(tmp_path / "none"): f"{tmp_path}/none: no such directory; check the path, or fill a "
        f"store there: python jobs/ingest.py --source … --store {tmp_path}/none",
        str(tmp_path / "file"): f"{tmp_path}/file: is a file; a store is a directory or "
        "s3://BUCKET/PREFIX",
        "gs://bucket/data": "gs://…: no such kind of store; give s3://BUCKET/PREFIX or a directory",
        "https://host/data": "https://…: no such kind of store; give s3://BUCKET/PREFIX or a "
        "directory",
        "s3:/bucket": "s3:/bucket: the scheme ends in two slashes, as in s3://BUCKET/PREFIX",
        "file://[::1/x": "file://[::1/x: file:// names no host; give file:///DIRECTORY",
        "file:///x%00y": "/x\0y: no path has a zero character; check the path",
        "store\udcff": f"{Path.cwd()}/store\udcff: the path is not UTF-8, so no record can name "
        "it; rename the folder, or set LC_ALL=C.UTF-8",
        "file://host/data": "file://host/data: file:// names no host; give file:///DIRECTORY",
        "s3://": "s3://: '' is not a bucket name; give s3://BUCKET/PREFIX with a bucket of 3 to "
        "63 letters, digits, dots and dashes",
        "s3://b/data": "s3://b/data: 'b' is not a bucket name; give s3://BUCKET/PREFIX with a "
        "bucket of 3 to 63 letters, digits, dots and dashes",
        "s3://bucket/../data": "key '../data': not a safe key; a key is a relative path like "
        "`train/0001.npy`",
        "s3://key:secret@bucket/data": "s3://…@…: a store's address holds no credential and no "
        "host; give s3://BUCKET/PREFIX, the endpoint in AWS_ENDPOINT_URL and keys the way the AWS "
        "tools take them",
    }
    for url, text in expected.items():
        assert message(lambda url=url: open_store(url)) == text  # type: ignore[misc]


def test_a_directory_that_cannot_be_made_or_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert message(lambda: open_store(str(tmp_path / "file" / "store"), create=True)) == (
        f"{tmp_path}/file/store: not a directory; name a store that this account can use"
    )
    assert message(lambda: open_store("/proc/self", create=True)) == (
        "/proc/self: no such file or directory; name a store that this account can use"
    )


def test_a_bucket_that_does_not_exist_is_told(s3: EmbeddedStore) -> None:
    assert message(lambda: open_store("s3://no-such-bucket/data")) == (
        f"s3://no-such-bucket/data: no bucket 'no-such-bucket' at {s3.endpoint}; check the name "
        "and AWS_ENDPOINT_URL, or make it: aws s3 mb s3://no-such-bucket"
    )


def test_a_wrong_key_is_told_without_repeating_it(
    s3: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = re.findall(r"= (\S+)", s3.credentials_file.read_text())
    for access, secret, code in [
        (right[0], "wrong-secret", "SignatureDoesNotMatch"),
        ("wrong-key", right[1], "InvalidAccessKeyId"),
    ]:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", access)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        assert message(lambda: open_store(s3.url)) == (
            f"{s3.url}: {s3.endpoint} refuses the credentials ({code}); check AWS_PROFILE or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they belong to this endpoint"
        )


def test_missing_credentials_are_told(
    s3: EmbeddedStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    assert message(lambda: open_store(s3.url)) == (
        f"{s3.url}: no credentials found; give them the way the AWS tools take them: AWS_PROFILE, "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role"
    )
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert message(lambda: open_store(s3.url)) == (
        f"{s3.url}: The config profile (nobody) could not be found; see the AWS configuration"
    )


def set_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)


def test_an_endpoint_that_does_not_answer_is_told_without_its_password(
    s3: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_endpoint(monkeypatch, "http://user:password@127.0.0.1:1")
    assert message(lambda: open_store(s3.url)) == (
        f"{s3.url}: http://127.0.0.1:1 cannot be reached (EndpointConnectionError); check "
        "AWS_ENDPOINT_URL, the network and the proxy settings"
    )
    set_endpoint(monkeypatch, "127.0.0.1:1")
    assert message(lambda: open_store(s3.url)) == (
        f"{s3.url}: AWS_ENDPOINT_URL is not an address; give http(s)://HOST:PORT"
    )


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("AWS_ENDPOINT_URL", "localhost:9000", "AWS_ENDPOINT_URL is not an address"),
        ("AWS_METADATA_SERVICE_TIMEOUT", "soon", "a value of the AWS configuration cannot be used"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/no/token", "/no/token: no such file or directory; name"),
        ("AWS_PROFILE", "nobody", "see the AWS configuration"),
        ("AWS_REQUEST_CHECKSUM_CALCULATION", "maybe", "see the AWS configuration"),
    ],
)
def test_a_setting_that_boto3_cannot_use_is_told(
    name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for other in ("AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/x")
    monkeypatch.setenv(name, value)
    text = message(lambda: open_store("s3://bucket/x"))
    assert text.startswith("s3://bucket/x: ")
    assert says in text


def test_what_the_account_may_not_do_is_told(s3: EmbeddedStore) -> None:
    # The key of the embedded store may list every bucket and write its own only.
    from tlcluster.storage.s3 import S3Store  # noqa: PLC0415

    foreign = S3Store("no-such-bucket", "", NodeCache())
    assert message(lambda: foreign.put("a", b"")) == (
        f"s3://no-such-bucket: these credentials may not do PutObject (AccessDenied) at "
        f"{s3.endpoint}; have s3:ListBucket, s3:GetObject and, to write, s3:PutObject and "
        "s3:DeleteObject granted"
    )


def test_no_secret_is_in_what_a_store_shows_of_itself(s3: EmbeddedStore) -> None:
    store = open_store(s3.url)
    for secret in re.findall(r"= (\S+)", s3.credentials_file.read_text()):
        assert secret not in f"{store!r} {vars(store)} {store.url} {s3!r}"


def test_many_may_make_the_same_directory_at_once(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def make(_: int) -> list[str]:
        made = []
        for number in range(50):
            start.wait(60)
            made.append(open_store(f"{tmp_path}/{number}/new", create=True).url)
        return made

    with ThreadPoolExecutor(8) as pool:
        expected = [f"{tmp_path}/{number}/new" for number in range(50)]
        assert list(pool.map(make, range(8))) == [expected] * 8


@pytest.fixture(params=sorted({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}))
def linkless(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Store:
    """A directory on a file system without hard links."""

    def refused(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(Path, "hardlink_to", refused)
    return open_store(str(tmp_path / "store"), create=True)


def test_without_hard_links_put_if_absent_still_never_replaces(linkless: Store) -> None:
    assert linkless.put_if_absent("a/b", b"first")
    assert not linkless.put_if_absent("a/b", b"second")
    assert linkless.get("a/b") == b"first"
    assert [path.name for path in Path(linkless.url, "a").iterdir()] == ["b"]


def test_without_hard_links_exactly_one_of_many_succeeds_and_no_half_object_is_seen(
    linkless: Store,
) -> None:
    barrier = threading.Barrier(9)
    size = 300_000

    def put(number: int, key: str) -> bool:
        barrier.wait(60)
        return linkless.put_if_absent(key, bytes([number]) * size)

    def read(key: str) -> set[int]:
        barrier.wait(60)
        sizes: set[int] = set()
        while not sizes:
            with contextlib.suppress(ObjectMissing):
                sizes.add(len(linkless.get(key)))
        return sizes

    with ThreadPoolExecutor(9) as pool:
        for attempt in range(5):
            seen = pool.submit(read, str(attempt))
            won = [pool.submit(put, number, str(attempt)) for number in range(8)]
            assert sum(writer.result() for writer in won) == 1
            assert seen.result() == {size}
    assert [item.size for item in linkless.list()] == [size] * 5


def test_without_hard_links_a_writer_that_was_killed_blocks_nobody(
    linkless: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its claim is waited for while it is fresh, and then removed."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            linkless.put_if_absent("a", b"lost")
    (claim,) = Path(linkless.url).glob(".tlcluster-claim-*")
    assert linkless.list() == []
    then = time.time() - 2 * CLAIM_SECONDS
    os.utime(claim, (then, then))
    assert linkless.put_if_absent("a", b"kept")
    assert linkless.get("a") == b"kept"
    assert not claim.exists()


def test_without_hard_links_a_writer_waits_for_one_that_is_at_work(
    linkless: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store_folder := Path(linkless.url)).mkdir(exist_ok=True)
    digest = hashlib.sha256(b"a").hexdigest()[:16]
    claim = store_folder / f".tlcluster-claim-{digest}"
    claim.touch()
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            (store_folder / "a").write_bytes(b"theirs")
            claim.unlink()

    monkeypatch.setattr(time, "sleep", sleep)
    assert not linkless.put_if_absent("a", b"ours")
    assert len(pauses) == 3
    assert linkless.get("a") == b"theirs"


def test_a_scheme_of_ones_own_is_one_module_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ones_own.py").write_text(
        "from pathlib import Path\n"
        "from tlcluster.storage.directory import DirectoryStore\n"
        "def open_address(url, cache, *, create, check):\n"
        f"    return DirectoryStore(Path({str(tmp_path)!r}) / url.removeprefix('own://'))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(opening, "SCHEMES", {**opening.SCHEMES, "own": "ones_own"})
    open_store("own://there").put("a", b"1")
    assert (tmp_path / "there" / "a").read_bytes() == b"1"
    with pytest.raises(UserError, match=r"other://…: no such kind of store"):
        open_store("other://there")
