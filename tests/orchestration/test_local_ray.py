"""A Ray on one machine is private: its folder, its token, its ports."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from tlcluster.errors import UserError
from tlcluster.orchestration import local_ray
from tlcluster.orchestration.cluster import ray_cluster
from tlcluster.orchestration.local_ray import LONGEST_BASE, private_ray

LONGEST_SOCKET = 107
"""Bytes of the path of a Unix socket on Linux."""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of its own, with a path that is short enough for Ray."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as folder:
        short = Path(folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setattr(local_ray, "LONGEST_BASE", len(folder))
        yield short


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_token_and_folder_are_for_this_account_and_gone_at_the_end(temporary: Path) -> None:
    with private_ray() as one, private_ray() as other:
        token = Path(str(one.environment["RAY_AUTH_TOKEN_PATH"]))
        assert mode(token) == 0o600
        assert mode(one.folder.parent) == 0o700
        assert token.read_text() != Path(str(other.environment["RAY_AUTH_TOKEN_PATH"])).read_text()
    assert list(temporary.iterdir()) == []


def test_a_long_temporary_folder_is_left_for_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("l" * LONGEST_SOCKET)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with private_ray() as there:
        assert there.folder.is_relative_to(local_ray.FALLBACK)
    monkeypatch.setattr(local_ray, "FALLBACK", tmp_path / "missing")
    with pytest.raises(UserError, match=f"a path of at most {LONGEST_BASE} characters"):
        private_ray().__enter__()


@pytest.mark.parametrize("name", ["a b", "a'b", "a$b", "größe", "a\nb"])
def test_a_temporary_folder_that_a_command_line_would_split_is_left_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    monkeypatch.setattr(local_ray, "LONGEST_BASE", 1000)
    with private_ray() as there:
        assert there.folder.is_relative_to(local_ray.FALLBACK)


def test_the_longest_allowed_folder_leaves_room_for_rays_sockets() -> None:
    below = "/tlcluster-r-0123456789abcdef/r/session_2026-11-27_17-34-47_848977_4194304/sockets"
    assert LONGEST_BASE + len(f"{below}/plasma_store") <= LONGEST_SOCKET


def test_a_full_temporary_folder_is_one_line(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    monkeypatch.setattr(local_ray, "LONGEST_BASE", len(str(small_disk)))
    with pytest.raises(OSError, match="No space"):  # noqa: PT012
        while True:
            (small_disk / os.urandom(8).hex()).write_bytes(b"x" * 4096)
    with pytest.raises(UserError, match="the disk is full; free some space there, or set TMPDIR"):
        private_ray().__enter__()


def processes_of(token: str) -> list[Path]:
    """The folders in /proc of the processes that know a token's file."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if token.encode() in (process / "environ").read_bytes():
                found.append(process)
        except OSError:
            continue
    return [*found, Path("/proc/self")]


def addresses(processes: list[Path]) -> set[str]:
    """Where they listen, as the kernel writes it."""
    sockets = set()
    for process in processes:
        try:
            sockets |= {str(entry.readlink()) for entry in (process / "fd").iterdir()}
        except OSError:
            continue
    return {
        line.split()[1].split(":")[0]
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
        if line.split()[3] == "0A" and f"socket:[{line.split()[9]}]" in sockets
    }


@pytest.mark.cluster
def test_nothing_of_it_listens_for_others_and_nothing_of_the_user_s_gets_in(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "colorsys.py").write_text("raise ImportError('a module of the user')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_XLA_FLAGS", "--of-another-job")

    def ours() -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH")}

    before = ours()
    for _ in range(2):  # Ray keeps the token that it has read first.
        with ray_cluster(None):

            @ray.remote(num_cpus=0)
            def token_file() -> str:
                return os.environ["RAY_AUTH_TOKEN_PATH"]

            @ray.remote(num_cpus=0)
            def temporary_folder() -> str:
                return tempfile.gettempdir()

            @ray.remote(num_cpus=0)
            def imported() -> str:
                import colorsys  # noqa: PLC0415

                import tlcluster  # noqa: PLC0415

                return f"{colorsys.__name__} {tlcluster.__name__} {os.environ['TF_XLA_FLAGS']}"

            assert ray.get(imported.remote()) == "colorsys tlcluster "
            assert Path(ray.get(temporary_folder.remote())).is_relative_to(temporary)
            token = ray.get(token_file.remote())
            assert Path(token).is_relative_to(temporary)
            processes = processes_of(token)
            assert len(processes) >= 4  # GCS, raylet, a worker, this one
            assert addresses(processes) <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert ours() == before
    assert list(temporary.iterdir()) == []
