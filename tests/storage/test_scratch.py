"""Temporary folders that go with their process."""

import errno
import fcntl
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tlcluster.storage.marked import mark
from tlcluster.storage.scratch import scratch_folder

SPAWN = multiprocessing.get_context("spawn")


def hold(base: Path, ready: Connection) -> None:
    with scratch_folder("test", base) as folder:
        (folder / "file").write_bytes(b"data")
        ready.send(folder)
        signal.pause()


def test_a_folder_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    with scratch_folder("test", tmp_path) as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "deep").mkdir()
    assert list(tmp_path.iterdir()) == []


def test_folders_of_the_living_stay_and_those_of_the_killed_go(tmp_path: Path) -> None:
    ours, theirs = SPAWN.Pipe()
    holder = SPAWN.Process(target=hold, args=(tmp_path, theirs))
    holder.start()
    held = ours.recv()
    with scratch_folder("test", tmp_path), scratch_folder("other", tmp_path):
        assert (held / "file").read_bytes() == b"data"
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with scratch_folder("other", tmp_path):
        assert held.exists()
    with scratch_folder("test", tmp_path):
        assert not held.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_only_has_such_a_name_stays(tmp_path: Path) -> None:
    ours = f"tlcluster-test-{16 * 'a'}"
    for name in (ours, ours + ".new", "tlcluster-test-results", "test-2024"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("mine")
    # A copy of one of our folders, for example to look into it later.
    (tmp_path / f"tlcluster-test-{16 * 'b'}").mkdir()
    mark(tmp_path / f"tlcluster-test-{16 * 'b'}", ours)
    (tmp_path / f"tlcluster-test-{16 * 'c'}").write_bytes(b"a file")
    before = sorted(path.name for path in tmp_path.iterdir())
    with scratch_folder("test", tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert all((tmp_path / name / "thesis.txt").exists() for name in before[:1])


def test_the_mark_is_what_lets_a_folder_go(tmp_path: Path) -> None:
    name = f"tlcluster-test-{16 * 'a'}"
    (tmp_path / name).mkdir()
    mark(tmp_path / name, name)
    with scratch_folder("test", tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_without_locks_a_folder_of_the_living_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", missing)
    with scratch_folder("test", tmp_path) as one, scratch_folder("test", tmp_path) as two:
        assert one.is_dir()
        assert two.is_dir()
    assert list(tmp_path.iterdir()) == []
