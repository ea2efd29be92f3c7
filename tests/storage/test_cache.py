"""The node cache: one download an object, verified every time, within its size."""

import errno
import fcntl
import hashlib
import mmap
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from tlcluster.errors import UserError
from tlcluster.storage.cache import (
    ABANDONED_SECONDS,
    DEFAULT_BYTES,
    GRACE_SECONDS,
    OBJECTS,
    TRIES,
    NodeCache,
    default_folder,
    verify,
)
from tlcluster.storage.marked import MARK
from tlcluster.storage.protocol import CorruptObject

SPAWN = multiprocessing.get_context("spawn")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Origin:
    """What a cache downloads from: content by turns, the last for ever; counts the downloads."""

    def __init__(self, *contents: bytes) -> None:
        self.contents = list(contents)
        self.downloads = 0

    def __call__(self, path: Path) -> None:
        self.downloads += 1
        path.write_bytes(self.contents[0] if len(self.contents) == 1 else self.contents.pop(0))


def get(cache: NodeCache, data: bytes, origin: Callable[[Path], None]) -> Path:
    return cache.get("train/0.npy", sha256=sha256(data), size=len(data), download=origin)


def names(folder: Path) -> set[str]:
    objects = NodeCache(folder).objects
    if not objects.exists():
        return set()
    return {path.name for path in objects.iterdir() if path.is_file()} - {MARK}


def age(path: Path, seconds: float = 2 * GRACE_SECONDS) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_an_object_is_downloaded_once(tmp_path: Path) -> None:
    origin = Origin(b"data")
    for _ in range(3):
        assert get(NodeCache(tmp_path / "new" / "cache"), b"data", origin).read_bytes() == b"data"
    assert origin.downloads == 1


def test_objects_of_equal_content_share_a_file(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path)
    origin = Origin(b"data")
    paths = {
        cache.get(key, sha256=sha256(b"data"), size=4, download=origin) for key in ("a", "b/c")
    }
    assert (len(paths), origin.downloads) == (1, 1)


def test_a_flipped_bit_is_noticed_on_a_hit_and_fetched_again(tmp_path: Path) -> None:
    origin = Origin(b"data")
    cache = NodeCache(tmp_path)
    path = get(cache, b"data", origin)
    for damage in (b"daTa", b"dat", b"data!", b""):
        path.write_bytes(damage)
        assert get(cache, b"data", origin).read_bytes() == b"data"
    assert origin.downloads == 5


def test_a_bad_download_is_tried_again(tmp_path: Path) -> None:
    origin = Origin(b"dat", b"daTa", b"data")
    assert get(NodeCache(tmp_path), b"data", origin).read_bytes() == b"data"
    assert origin.downloads == TRIES == 3


def test_after_the_last_try_the_error_names_key_expected_and_found(tmp_path: Path) -> None:
    origin = Origin(b"bad")
    with pytest.raises(CorruptObject) as caught:
        get(NodeCache(tmp_path), b"data", origin)
    assert str(caught.value) == (
        f"train/0.npy: the object is damaged: expected sha256 {sha256(b'data')} (4 bytes), "
        f"found sha256 {sha256(b'bad')} (3 bytes); delete it and ingest the same source again"
    )
    assert origin.downloads == TRIES
    assert names(tmp_path) == set()


def test_a_download_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise UserError("the network is gone")

    with pytest.raises(UserError, match="the network is gone"):
        get(NodeCache(tmp_path), b"data", fail)
    assert names(tmp_path) == set()


def fetch_slowly(folder: Path, log: Path) -> None:
    def download(part: Path) -> None:
        with log.open("a") as file:
            file.write("download\n")
        time.sleep(0.3)
        part.write_bytes(b"data")

    assert get(NodeCache(folder), b"data", download).read_bytes() == b"data"


def test_processes_that_want_one_object_download_it_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    workers = [SPAWN.Process(target=fetch_slowly, args=(tmp_path / "cache", log)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert log.read_text() == "download\n"


def download_for_ever(folder: Path, begun: Event) -> None:
    def download(part: Path) -> None:
        part.write_bytes(b"half")
        begun.set()
        signal.pause()

    get(NodeCache(folder), b"data", download)


def test_a_download_that_was_killed_blocks_nobody_and_its_part_is_swept(tmp_path: Path) -> None:
    begun = SPAWN.Event()
    worker = SPAWN.Process(target=download_for_ever, args=(tmp_path, begun))
    worker.start()
    assert begun.wait(60)
    part = f"{sha256(b'data')}.part"

    get(NodeCache(tmp_path), b"other", Origin(b"other"))
    assert part in names(tmp_path), "a download under way was swept"

    worker.kill()
    worker.join()
    get(NodeCache(tmp_path), b"third", Origin(b"third"))
    assert names(tmp_path) == {sha256(b"other"), sha256(b"third")}
    assert get(NodeCache(tmp_path), b"data", Origin(b"data")).read_bytes() == b"data"


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def test_without_locks_each_downloads_into_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)
    cache = NodeCache(tmp_path)

    def slow(part: Path) -> None:
        part.write_bytes(b"da")
        # Another process wants the same object meanwhile, and one wants room for another.
        assert get(NodeCache(tmp_path), b"data", Origin(b"data")).read_bytes() == b"data"
        get(NodeCache(tmp_path), b"other", Origin(b"other"))
        with part.open("ab") as file:
            file.write(b"ta")

    assert get(cache, b"data", slow).read_bytes() == b"data"
    assert names(tmp_path) == {sha256(b"data"), sha256(b"other")}


def test_without_locks_a_part_that_nobody_writes_to_any_more_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)
    cache = NodeCache(tmp_path)
    get(cache, b"first", Origin(b"first"))
    dead, alive = (cache.objects / f"{sha256(b'x')}-{16 * end}.part" for end in "ab")
    for part in (dead, alive):
        part.write_bytes(b"half")
    age(dead, 2 * ABANDONED_SECONDS)
    get(cache, b"second", Origin(b"second"))
    assert names(tmp_path) == {sha256(b"first"), sha256(b"second"), alive.name}


def test_above_its_size_the_least_recently_used_files_go(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, max_bytes=30)
    contents = [bytes([number]) * 10 for number in range(4)]
    paths = [get(cache, data, Origin(data)) for data in contents[:3]]
    for path, seconds in zip(paths, (400, 300, 200), strict=True):
        age(path, seconds)
    get(cache, contents[0], Origin(b""))  # used now, so no longer the oldest
    get(cache, contents[3], Origin(contents[3]))
    assert names(tmp_path) == {sha256(contents[number]) for number in (0, 2, 3)}


def test_files_of_others_are_never_deleted(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, max_bytes=1)
    get(cache, b"first", Origin(b"first"))
    theirs = [tmp_path / name for name in ("thesis.txt", "film.mkv.part", "ab" * 32)]
    theirs += [cache.objects / name for name in ("notes.txt", "film.part", "ab" * 31)]
    for path in theirs:
        path.write_text("mine")
        age(path)
    folder = cache.objects / sha256(b"a folder")
    folder.mkdir()
    link = cache.objects / sha256(b"a link")
    link.symlink_to(theirs[0])
    get(cache, b"second", Origin(b"second"))
    assert [path.read_text() for path in theirs] == ["mine"] * len(theirs)
    assert folder.is_dir()
    assert link.is_symlink()


def test_a_folder_that_only_has_the_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / OBJECTS).mkdir()
    mine = tmp_path / OBJECTS / sha256(b"mine")
    mine.write_text("mine")
    with pytest.raises(UserError, match="was not made by this program; rename that, or name"):
        get(NodeCache(tmp_path), b"data", Origin(b"data"))
    assert [path.name for path in (tmp_path / OBJECTS).iterdir()] == [mine.name]
    assert [path.name for path in tmp_path.iterdir()] == [OBJECTS]


def test_what_was_just_handed_out_is_not_evicted(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, max_bytes=1)
    first = get(cache, b"first", Origin(b"first"))
    second = get(cache, b"second", Origin(b"second"))
    assert first.read_bytes() + second.read_bytes() == b"firstsecond"
    age(first)
    get(cache, b"third", Origin(b"third"))
    assert names(tmp_path) == {sha256(b"second"), sha256(b"third")}


def test_a_reader_keeps_a_mapped_file_that_is_evicted(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, max_bytes=1)
    path = get(cache, b"data", Origin(b"data"))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        age(path)
        get(cache, b"other", Origin(b"other"))
        assert not path.exists()
        assert mapped[:] == b"data"


def test_a_full_disk_is_one_line_with_the_flag(small_disk: Path) -> None:
    data = bytes(2 * 2**20)
    with pytest.raises(UserError) as caught:
        get(NodeCache(small_disk), data, Origin(data))
    assert str(caught.value) == (
        f"cache folder {small_disk}: the disk is full; "
        "free some space or name another folder with --cache"
    )
    assert names(small_disk) == set()


def test_a_folder_that_cannot_be_made_is_one_line_with_the_flag(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as caught:
        get(NodeCache(tmp_path / "file"), b"data", Origin(b"data"))
    assert str(caught.value) == (
        f"cache folder {tmp_path}/file: {os.strerror(errno.ENOTDIR).lower()}; "
        "name a folder that can be written with --cache"
    )


def test_the_folder_is_where_the_desktop_standard_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == NodeCache().folder == tmp_path / "xdg" / "tlcluster"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "tlcluster"
    assert NodeCache().max_bytes == DEFAULT_BYTES == 20 * 2**30


def test_without_a_home_only_the_default_folder_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As with `docker run --user` and an account that the image does not know."""

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    cache = NodeCache()
    with pytest.raises(
        UserError, match=r"^this account has no home directory to keep a cache in; set"
    ):
        cache.check()
    monkeypatch.undo()
    NodeCache(tmp_path / "given").check()


def test_a_folder_that_cannot_be_written_is_found_before_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file exists; name a folder that can be written"):
        NodeCache(tmp_path / "file").check()
    NodeCache(tmp_path / "new").check()
    NodeCache(tmp_path / "new").check()


def test_a_link_that_another_account_has_put_there_is_not_written_through(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path / "cache")
    cache.check()
    (tmp_path / "mine").write_bytes(b"precious")
    digest = hashlib.sha256(b"data").hexdigest()
    (cache.objects / f"{digest}.part").symlink_to(tmp_path / "mine")
    path = get(cache, b"data", lambda path: path.write_bytes(b"data") and None)
    assert path.read_bytes() == b"data"
    assert not path.is_symlink()
    assert (tmp_path / "mine").read_bytes() == b"precious"


def test_verify_compares_the_whole_file(tmp_path: Path) -> None:
    data = os.urandom(3 * 2**20 + 1)
    path = tmp_path / "file"
    path.write_bytes(data)
    verify(path, "k", sha256=sha256(data), size=len(data))
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CorruptObject):
        verify(path, "k", sha256=sha256(data), size=len(data))


def test_verified_again_a_file_is_read_as_a_whole_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(3 * 2**20 + 1)
    path = tmp_path / "file"
    path.write_bytes(data)
    known = {"sha256": sha256(data), "size": len(data)}
    verify(path, "k", **known)
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "sha256", pytest.fail)
        verify(path, "k", **known)
    with pytest.raises(CorruptObject, match=rf"\({len(data) + 1} bytes\), found"):
        verify(path, "k", sha256=known["sha256"], size=len(data) + 1)
    for damaged in (data[:-1] + bytes([data[-1] ^ 1]), data[:-1], data + b"\0", b""):
        path.write_bytes(damaged)
        with pytest.raises(CorruptObject, match=sha256(damaged)):
            verify(path, "k", **known)
    path.write_bytes(data)
    verify(path, "k", **known)
