"""Locks end with their process, and without locks nobody waits for ever."""

import errno
import fcntl
import multiprocessing
import os
import signal
import stat
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tlcluster.storage.locks import NO_LOCKS, LockTaken, process_lock

SPAWN = multiprocessing.get_context("spawn")


def hold(path: Path, ready: Connection) -> None:
    with process_lock(path, wait=True) as locked:
        ready.send(locked)
        signal.pause()


def test_a_lock_is_one_holder_s_at_a_time_also_within_a_process(tmp_path: Path) -> None:
    with process_lock(tmp_path / "lock", wait=True) as locked:
        assert locked
        with pytest.raises(LockTaken), process_lock(tmp_path / "lock", wait=False):
            pass
        with process_lock(tmp_path / "other", wait=False) as other:
            assert other
    with process_lock(tmp_path / "lock", wait=False) as again:
        assert again


def test_a_lock_ends_with_its_process_also_by_kill_9(tmp_path: Path) -> None:
    ours, theirs = SPAWN.Pipe()
    holder = SPAWN.Process(target=hold, args=(tmp_path / "lock", theirs))
    holder.start()
    assert ours.recv()
    with pytest.raises(LockTaken), process_lock(tmp_path / "lock", wait=False):
        pass
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with process_lock(tmp_path / "lock", wait=False) as locked:
        assert locked


@pytest.mark.parametrize("number", sorted(NO_LOCKS))
def test_without_locks_nothing_is_locked_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def missing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", missing)
    with (
        process_lock(tmp_path / "lock", wait=True) as one,
        process_lock(tmp_path / "lock", wait=True) as two,
        process_lock(tmp_path / "lock", wait=False) as three,
    ):
        assert [one, two, three] == [False] * 3
    assert (tmp_path / "lock").read_bytes() == b""


def test_other_errors_of_the_file_system_are_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError), process_lock(tmp_path / "no" / "lock", wait=True):
        pass
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        process_lock(tmp_path / "link", wait=True).__enter__()

    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(fcntl, "flock", stale)
    with pytest.raises(OSError, match="Stale"), process_lock(tmp_path / "lock", wait=False):
        pass


def test_the_lock_file_of_another_account_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a shared cache; it can be read only, which is what root is never refused."""
    (tmp_path / "lock").touch()
    real = os.open

    def refused(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", refused)
    with process_lock(tmp_path / "lock", wait=True) as locked:
        assert locked
        with pytest.raises(LockTaken), process_lock(tmp_path / "lock", wait=False):
            pass
    assert stat.S_ISREG((tmp_path / "lock").stat().st_mode)
